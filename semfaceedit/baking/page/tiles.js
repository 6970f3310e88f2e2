// Which layers each tile of the picture shows, and how far away they are at its corners.

// Of the light, below which nothing behind shows, and the least opacity that counts: of a still head, and
// of one that moves.
const STILL = { hidden: 1 / 512, faint: 1 }, MOVING = { hidden: 1 / 64, faint: 6 };
const SOME = 13;  // of 255: the least score of a class that may lead
const HELD = 0.7;  // the least share of a group that has a place for itself
const MOST_LAYERS = 48;
const WEAK = 1 << 15;  // beside the bits of groups: somewhere none has that much
const NONE = 9;  // stands for the distance to a surface that is not met

// Over every square window of `reach` texels from (x, y) on, the least or most of planes, or all bits.
function windowed(planes, { width, height, layers }, reach, join) {
  const row = new Uint32Array(width);
  for (let step = 1; step < reach; step *= 2)
    for (let k = 0; k < layers; k++) {
      const start = k * width * height;
      for (let y = 0; y < height; y++) {
        const here = start + y * width, below = start + Math.min(height - 1, y + step) * width;
        for (let x = 0; x < width; x++) row[x] = join(planes[here + x], planes[below + x]);
        for (let x = 0; x < width; x++) planes[here + x] = join(row[x], row[Math.min(width - 1, x + step)]);
      }
    }
  return planes;
}

// Groups, and classes, that a texel may belong to: a bit each.
function possible(header, scores) {
  const { classes, groups, exclusive } = header, area = scores.length / classes.length;
  const groupBits = new Uint16Array(area), classBits = new Uint32Array(area);
  const sums = groups.map(() => new Uint16Array(area));
  classes.forEach(({ group }, c) => {
    const plane = scores.subarray(c * area, (c + 1) * area), sum = sums[group], bit = 1 << c;
    for (let i = 0; i < area; i++) {
      sum[i] += plane[i];
      if (plane[i] >= SOME) classBits[i] |= bit;
    }
  });
  const some = exclusive ? 2 * SOME : 1;
  for (let i = 0; i < area; i++) {
    let all = 0, most = 0;
    sums.forEach((sum, g) => {
      if (sum[i] >= some) groupBits[i] |= 1 << g;
      all += sum[i];
      most = Math.max(most, sum[i]);
    });
    if (all && most < 255 * HELD) groupBits[i] |= WEAK;
  }
  return { groupBits, classBits };
}

const single = (bits) => bits && !(bits & (bits - 1));
const count = (bits) => { let n = 0; for (; bits; bits &= bits - 1) n++; return n; };

export class Tiles {
  // heights: world z of the surfaces; alpha, scores: planes of bytes.
  constructor(header, heights, alpha, scores) {
    const { width, height, layers } = header;
    if (layers > MOST_LAYERS) throw new Error(`This page draws ${MOST_LAYERS} layers at most, not ${layers}.`);
    Object.assign(this, { header, heights });
    this.reach = 2 ** Math.max(1, Math.round(Math.log2(width / 50)));
    const { groupBits, classBits } = possible(header, scores);
    const over = (planes, join) => windowed(planes, header, this.reach, join);
    this.least = over(alpha.slice(), Math.min);
    this.most = over(alpha.slice(), Math.max);
    this.groups = over(groupBits, (a, b) => a | b);
    this.classes = over(classBits, (a, b) => a | b);
    this.inGroup = header.groups.map((_, g) =>
      header.classes.reduce((bits, { group }, c) => bits | (group === g ? 1 << c : 0), 0));
    const area = header.grid ** 2;
    this.tops = Array.from({ length: layers - 1 }, (_, k) =>
      heights.subarray(k * area, (k + 1) * area).reduce((top, z) => Math.max(top, z), -1));
    this.found = new Float64Array(4 * layers);
    this.order = new Uint8Array(layers);
    this.owner = new Uint8Array(layers);
  }

  // Calls `take(x, y, count, sure)` for each of tiles x tiles, with `order` naming its layers front to
  // back and `found` the distances at its corners, along the axis of view. sure: all over the tile, each
  // layer has the colours of the group in `owner` (by: "group"), or shows the class in it (by: "class"),
  // by Eq. 2. moving: what hardly shows is left out.
  look(camera, tiles, { by = "", moving = false }, take) {
    const { header: h, found, order } = this, last = h.layers - 1, nodes = tiles + 1;
    const { hidden, faint } = moving ? MOVING : STILL;
    this._meet(camera, nodes);
    const { distances, stretch, across, up, range, bits, kinds } = this, area = nodes * nodes, planes = last * area;
    const corners = [0, 1, nodes, nodes + 1], toX = [], toY = [];
    for (const box of [h.box, h.planeBox]) {
      toX.push(h.width / (box[1] - box[0]));
      toY.push(h.height / (box[2] - box[3]));
    }
    for (let y = 0; y < tiles; y++)
      for (let x = 0; x < tiles; x++) {
        const first = y * nodes + x;
        let light = 1, shown = 0, whole = true;
        for (let k = 0; k <= last && light > hidden; k++) {
          let met = 0, sum = 0;
          for (let c = 0; c < 4; c++) {
            const s = distances[k * area + first + corners[c]];
            found[4 * shown + c] = s;
            if (s < NONE) { met++; sum += s; }
          }
          if (!met) continue;
          if (met < 4) {
            whole = false;
            for (let c = 0; c < 4; c++) if (found[4 * shown + c] >= NONE) found[4 * shown + c] = sum / met;
          }
          const plane = k === last ? 1 : 0, box = plane ? h.planeBox : h.box;
          let left = 1e9, right = -1e9, top = 1e9, bottom = -1e9, inside = true;
          for (let c = 0; c < 4; c++) {
            const s = found[4 * shown + c], at = first + corners[c];
            const u = (camera[6] + s * across[at] - box[0]) * toX[plane], v = (camera[7] + s * up[at] - box[3]) * toY[plane];
            if (u < left) left = u;
            if (u > right) right = u;
            if (v < top) top = v;
            if (v > bottom) bottom = v;
            const t = s * stretch[at];
            if (t < h.near || t > h.far || s > distances[planes + at]) inside = false;
          }
          const least = this._over(k, left, right, top, bottom);
          if (!plane && this.mostHere < faint) continue;
          if (!plane && !inside) whole = false;
          order[shown] = k;
          bits[shown] = this.groupsHere;
          kinds[shown] = this.classesHere;
          range[2 * shown] = plane ? 1 : least / 255;
          range[2 * shown + 1] = plane ? 1 : this.mostHere / 255;
          if (plane || (inside && met === 4)) light *= 1 - range[2 * shown];
          shown++;
        }
        if (shown) take(x, y, shown, whole && (by === "group" ? this._ownedByGroup(shown) : by === "class" && this._ownedByClass(shown)));
      }
  }

  // Whether the group of each layer is the same all over the tile; `owner` has them then.
  // The mass of the leading group is followed from behind, from below, and that of all others from above.
  _ownedByGroup(shown) {
    const { owner, range, bits, kinds, inGroup } = this;
    let group = -1, held = 0, others = 0, classes = 0;
    for (let j = shown - 1; j >= 0; j--) {
      if (!single(bits[j])) return false;
      const own = 31 - Math.clz32(bits[j]), low = range[2 * j], high = range[2 * j + 1];
      classes |= kinds[j];
      if (group < 0) {
        group = own;
        held = HELD;
        others = 1 - HELD;
      } else if (own === group) {
        held = Math.min(held * (1 - low) + HELD * low, held * (1 - high) + HELD * high);
        others = Math.max(others * (1 - low) + (1 - HELD) * low, others * (1 - high) + (1 - HELD) * high);
      } else {
        const stays = held * (1 - high), comes = others * (1 - low) + high;
        const taken = HELD * low, leaves = 1 - taken;
        if (stays > comes * Math.max(1, count(classes & inGroup[group]))) {
          held = stays;
          others = Math.min(1, comes);
        } else if (taken > leaves * Math.max(1, count(classes & inGroup[own]))) {
          group = own;
          held = taken;
          others = leaves;
        } else return false;
      }
      owner[j] = group;
    }
    return true;
  }

  // Whether one class leads in front all over the tile; `owner` begins with it then.
  _ownedByClass(shown) {
    const { owner, range, kinds } = this;
    let own = 0, held = 0;
    for (let j = shown - 1; j >= 0; j--) {
      const low = range[2 * j], high = range[2 * j + 1], same = kinds[j] === own;
      if (single(kinds[j]) && (same || HELD * low > 0.5)) {
        held = same ? Math.min(held * (1 - low) + HELD * low, held * (1 - high) + HELD * high) : HELD * low;
        own = kinds[j];
      } else held *= 1 - high;
      if (held <= 0.5) own = 0;
    }
    owner[0] = 31 - Math.clz32(own);
    return own !== 0;
  }

  // The least opacity over a rectangle of texels; sets what else is there.
  _over(k, left, right, top, bottom) {
    const { width, height } = this.header, { reach } = this, start = k * width * height;
    const clip = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
    const x0 = clip(left - 0.5, width), x1 = clip(right + 0.5, width);
    const y0 = clip(top - 0.5, height), y1 = clip(bottom + 0.5, height);
    let least = 255, most = 0, groups = 0, classes = 0;
    for (let y = y0; ; y = Math.min(y + reach, y1 - reach + 1)) {
      for (let x = x0; ; x = Math.min(x + reach, x1 - reach + 1)) {
        const i = start + y * width + x;
        if (this.least[i] < least) least = this.least[i];
        if (this.most[i] > most) most = this.most[i];
        groups |= this.groups[i];
        classes |= this.classes[i];
        if (x + reach > x1) break;
      }
      if (y + reach > y1) break;
    }
    this.mostHere = most;
    this.groupsHere = groups;
    this.classesHere = classes;
    return least;
  }

  // Distances along the axis of view to every layer at nodes x nodes rays, the outermost on the
  // picture's border: the first interval of the coarse samples in which the ray enters a surface, and
  // one linear interpolation in it. Three samples more at each end keep them continuous at the ends.
  _meet(camera, nodes) {
    const { header: h, heights, tops } = this, area = nodes * nodes, size = h.grid, most = size - 1.001;
    if (this.distances?.length !== area * h.layers) {
      this.distances = new Float32Array(area * h.layers);
      [this.stretch, this.across, this.up] = [0, 1, 2].map(() => new Float64Array(area));
      this.range = new Float64Array(2 * h.layers);
      [this.bits, this.kinds] = [new Uint32Array(h.layers), new Uint32Array(h.layers)];
    }
    const { distances, stretch, across, up } = this, interval = (h.far - h.near) / (h.samples - 1);
    const [left, right, bottom, top] = h.box;
    const toX = (size - 1) / (right - left), toY = (size - 1) / (bottom - top);
    for (let row = 0, i = 0; row < nodes; row++)
      for (let column = 0; column < nodes; column++, i++) {
        const px = ((2 * column) / (nodes - 1) - 1) * h.halfExtent, py = ((2 * row) / (nodes - 1) - 1) * h.halfExtent;
        const dx = camera[0] * px + camera[3] * py - camera[6];
        const dy = camera[1] * px + camera[4] * py - camera[7];
        const dz = Math.min(camera[2] * px + camera[5] * py - camera[8], -1e-4);
        const long = Math.sqrt(px * px + py * py + 1), step = interval / long, near = h.near / long;
        across[i] = dx;
        up[i] = dy;
        stretch[i] = long;
        for (let k = 0; k < h.layers - 1; k++) {
          const base = k * size * size, reach = (tops[k] - camera[8]) / dz;  // where the surface can begin
          let n = Math.max(-3, Math.floor((reach - near) / step) - 1), before = -1, result = NONE;
          for (; n < h.samples + 3; n++) {
            const s = near + n * step, z = camera[8] + s * dz;
            let gx = (camera[6] + s * dx - left) * toX, gy = (camera[7] + s * dy - top) * toY;
            gx = gx > 0 ? (gx < most ? gx : most) : 0;
            gy = gy > 0 ? (gy < most ? gy : most) : 0;
            const x = gx | 0, y = gy | 0, fx = gx - x, fy = gy - y, at = base + y * size + x;
            const upper = heights[at] + fx * (heights[at + 1] - heights[at]);
            const lower = heights[at + size] + fx * (heights[at + size + 1] - heights[at + size]);
            const above = z - upper - fy * (lower - upper);
            if (above < 0 && before >= 0) {
              result = s - (step * above) / (above - before);
              if (result >= near) break;
            }
            before = above;
            if (z < h.planeZ - 0.025) break;
          }
          distances[k * area + i] = result;
        }
        distances[(h.layers - 1) * area + i] = (h.planeZ - camera[8]) / dz;
      }
  }
}
