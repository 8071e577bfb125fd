// Colours of the maps that the figures in Python have too, from the lowest to the highest; between two, mix.
// tests/server/test_page.py compares them with Matplotlib's.

export const COLOUR_MAPS = {
  RdBu_r: "0530612065ab4393c390c4ddd1e5f0f7f6f6fddbc7f3a481d6604db1182b67001f",
  magma:
    "00000402010903031206051a0a08220e0b2b130d34180f3d1d114722115029115a2f116336106b3d0f71440f764a1079" +
    "52137c59157e5f187f651a806b1d81721f817822817e24828426818b2981912b81982d809e2f7fa5317eab337cb2357b" +
    "ba3878c03a76c73d73cd4071d3436ed9466bdf4a68e44f64e95462ed5a5ff1605df4675cf66e5cf8765cfa7d5efb8560" +
    "fc8e64fd9668fe9d6cfea571feac76feb47bfebb81fec287feca8dfed194fed89afde0a1fde7a9fceeb0fcf6b8fcfdbf",
};
