// In the audio thread: hands on what the microphone hears, a tenth of a second at a time; of every so
// many samples one, where a sound card has more of them than a stream.

const TAPS = 32; // of the low-pass filter on each side, counted in samples of the stream

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { every } }) {
    super();
    this.every = every;
    this.filter = lowPass(every);
    this.past = new Float32Array(this.filter.length); // the last samples, in a ring
    this.at = 0;
    this.block = new Float32Array(Math.round(sampleRate / every / 10));
    this.filled = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this.past[this.at % this.past.length] = sample;
      if (this.at++ % this.every === 0) this.take();
    }
    return true;
  }

  take() {
    let sum = 0;
    for (let n = 0; n < this.filter.length; n++) sum += this.filter[n] * this.past[(this.at + n) % this.past.length];
    this.block[this.filled++] = sum;
    if (this.filled < this.block.length) return;
    this.port.postMessage(this.block.slice());
    this.filled = 0;
  }
}

// What a rate that is so many times lower can hold: a sinc with a Hann window. One sample where nothing is left out.
function lowPass(every) {
  if (every === 1) return [1];
  const half = TAPS * every;
  const taps = Array.from({ length: 2 * half + 1 }, (_, n) => {
    const x = (Math.PI * (n - half)) / every;
    return (x === 0 ? 1 : Math.sin(x) / x) * (1 + Math.cos((Math.PI * (n - half)) / half));
  });
  const sum = taps.reduce((total, tap) => total + tap, 0);
  return taps.map((tap) => tap / sum);
}

registerProcessor("capture", Capture);
