// Sounds: what a microphone or a file gives, as WAV; and their samples, to be drawn.

/** Record until the returned function is called, which resolves to a WAV blob of a rate. */
export async function record(rate) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, autoGainControl: false, noiseSuppression: false } });
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const ended = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start();
  return async () => {
    recorder.stop();
    await ended;
    stream.getTracks().forEach((track) => track.stop());
    const { samples } = await samplesOf(new Blob(parts, { type: recorder.mimeType }), rate);
    return wav(samples, rate);
  };
}

/** The samples of a sound, mono, at a rate that the browser can make of it. */
export async function samplesOf(blob, rate) {
  const bytes = await blob.arrayBuffer();
  const context = new OfflineAudioContext(1, 1, rate ?? 44100);
  const decoded = await context.decodeAudioData(bytes);
  const samples = decoded.getChannelData(0).slice();
  for (let channel = 1; channel < decoded.numberOfChannels; channel += 1) {
    const other = decoded.getChannelData(channel);
    samples.forEach((value, i) => { samples[i] = value + other[i]; });
  }
  return { samples: samples.map((value) => value / decoded.numberOfChannels), rate: decoded.sampleRate };
}

/** A WAV file of 16 bit, mono. */
export function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([view.buffer], { type: "audio/wav" });
}
