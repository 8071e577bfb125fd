// Elements of the page, made of parts; texts are texts, never markup.

/** An element: tag, properties (on* are listeners, aria-* and data-* attributes), children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (/^(aria|data)-|^(for|role|webkitdirectory)$/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** The element of an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Say what goes on, or what is wrong, where screen readers read it. */
export function say(words, isWrong = false) {
  const status = byId("status");
  status.textContent = words;
  status.classList.toggle("wrong", isWrong);
}
