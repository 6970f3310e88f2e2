// The bytes of a baked face -> planes and pictures.

const inflate = async (bytes) => {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// Rows of differences -> values, in place.
const summed = (bytes, width) => {
  for (let start = 0; start < bytes.length; start += width)
    for (let i = start + 1; i < start + width; i++) bytes[i] += bytes[i - 1];
  return bytes;
};

export class Layers {
  constructor(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    this.header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    if (this.header.format !== "semfaceedit-layers") throw new Error("This is no baked face.");
    this.buffer = buffer;
    this.start = 4 + length;
  }

  section(name) {
    const [offset, length] = this.header.sections[name];
    return new Uint8Array(this.buffer, this.start + offset, length);
  }

  async planes(name, width) {
    return summed(await inflate(this.section(name)), width);
  }

  // World z of every surface at the nodes of the grid, as floats of 16-bit steps.
  async heights() {
    const { grid, layers, lowest, highest } = this.header;
    const bytes = await this.planes("heights", grid);
    const count = (layers - 1) * grid * grid;
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++)
      values[i] = lowest + ((256 * bytes[i] + bytes[count + i]) / 65535) * (highest - lowest);
    return values;
  }

  // The colours of a group in one of its looks: a picture for each layer.
  async colors(look, group) {
    const { layers, width, height, columns, imageType } = this.header;
    const blob = new Blob([this.section(`colors-${look}-${group}`)], { type: imageType });
    const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
    const whole = await createImageBitmap(blob, options);
    const parts = [];
    for (let k = 0; k < layers; k++) {
      const [x, y] = [(k % columns) * width, Math.floor(k / columns) * height];
      parts.push(createImageBitmap(whole, x, y, width, height, options));
    }
    return Promise.all(parts);
  }
}

// RGBA a texel: opacity, the least score that the leading class has here and in the eight texels
// around, its index, and its group. Where the second is above a half after filtering, all texels
// that took part have the same leader, so its index and group come out of the filter unchanged.
export function leaders(header, alpha, scores) {
  const { width, height, layers, classes } = header, area = width * height;
  const out = new Uint8Array(4 * area * layers);
  for (let k = 0; k < layers; k++) {
    const planes = classes.map((_, c) => scores.subarray((c * layers + k) * area, (c * layers + k + 1) * area));
    const lead = new Uint8Array(area), most = new Uint8Array(area);
    planes.forEach((plane, c) => {
      for (let i = 0; i < area; i++) if (plane[i] > most[i]) { most[i] = plane[i]; lead[i] = c; }
    });
    for (let y = 0, i = 0; y < height; y++)
      for (let x = 0; x < width; x++, i++) {
        const plane = planes[lead[i]];
        let least = header.exclusive ? most[i] : 0;
        if (least > 127)
          for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++)
            for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++)
              least = Math.min(least, plane[v * width + u]);
        out.set([alpha[k * area + i], least, lead[i], classes[lead[i]].group], 4 * (k * area + i));
      }
  }
  return out;
}

// A byte for each of four groups a texel: its part of the opacity. The four sum to the opacity.
export function groupMasses(header, alpha, scores) {
  const { classes } = header, area = alpha.length, out = new Uint8Array(4 * area);
  for (let i = 0; i < area; i++) {
    if (!alpha[i]) continue;
    const shares = [0, 0, 0, 0];
    let sum = 0;
    classes.forEach(({ group }, c) => { shares[group] += scores[c * area + i]; sum += scores[c * area + i]; });
    let before = 0, given = 0;
    for (let g = 0; g < 4; g++) {
      before += shares[g];
      const upTo = sum ? Math.round((alpha[i] * before) / sum) : 0;
      out[4 * i + g] = upTo - given;
      given = upTo;
    }
  }
  return out;
}
