// Draws a baked face with WebGL 2, tile by tile: each with the layers that it may show.

import { groupMasses, leaders } from "./layers.js";
import { EVERYWHERE, JOINED, NORMALS, corner, depth, mixed, plain, quick, solid } from "./shaders.js";
import { Tiles } from "./tiles.js";

export const VIEWS = ["face", "labels", "depth", "normals"];
const TILES = { moving: 64, still: 128 };  // along an edge of the picture
const EXACT = 6;  // programs for as many layers at most; those for more take some for nothing
const ARRAYS = ["sheets", "masses", "scores", "colors"], PLAIN = ["picture", "depths"];

// Corners of tiles with some number of layers, for one program.
class Batch {
  constructor(count) {
    this.count = count;
    this.fours = Math.ceil(count / 4);
    this.words = 1 + 4 * this.fours + 4 * Math.ceil(count / 16);  // a corner
    this.used = 0;
    this._room(1 << 12);
  }

  _room(words) {
    const old = this.integers;
    this.integers = new Uint32Array(words);
    if (old) this.integers.set(old);
    this.floats = new Float32Array(this.integers.buffer);
  }

  // A tile with `shown` layers, front to back; `empty` stands for none and comes in front.
  add(x, y, shown, found, indices, empty) {
    if (this.used + 4 * this.words > this.integers.length) this._room(2 * this.integers.length);
    const { integers, floats, words, count } = this, missing = count - shown;
    for (let c = 0; c < 4; c++, this.used += words) {
      const at = this.used;
      integers[at] = (x + (c & 1)) | ((y + (c >> 1)) << 16);
      for (let i = at + 1; i < at + words; i++) integers[i] = 0;
      for (let j = 0; j < count; j++) {
        const k = j < missing ? empty : indices[j - missing];
        if (j >= missing) floats[at + 1 + j] = found[4 * (j - missing) + c];
        integers[at + 1 + 4 * this.fours + (j >> 2)] |= k << (8 * (j % 4));
      }
    }
  }
}

export class FaceRenderer {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false });
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer.");
    this.gl = gl;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    this.nothing = gl.createVertexArray();
    this.target = gl.createFramebuffer();
    this.textures = {};
    this.programs = new Map();
    this.batches = new Map();
    this._quads();
  }

  // Take a baked face; the former one is drawn until all of it is there.
  async load(layers) {
    const { gl } = this, h = layers.header;
    const [heights, alpha, scores, ...colors] = await Promise.all([
      layers.heights(), layers.planes("alpha", h.width), layers.planes("scores", h.width),
      ...h.groups.map((_, group) => layers.colors(0, group)),
    ]);
    const tiles = new Tiles(h, heights, alpha, scores), quads = Math.ceil(h.classes.length / 4);
    for (const texture of Object.values(this.textures)) gl.deleteTexture(texture);
    Object.assign(this, { layers, tiles, quads, textures: {} });
    this.batches.clear();
    this._array("sheets", h.layers, leaders(h, alpha, scores));
    this.quick = h.exclusive && h.groups.length <= 4;
    if (this.quick) this._array("masses", h.layers, groupMasses(h, alpha, scores));
    this._array("scores", h.layers * quads, this._scores(scores));
    this._array("colors", h.layers * h.groups.length + 1);  // the last is empty
    this._plain("picture", h.width, h.height);
    colors.forEach((pictures, group) => this._dress(group, pictures));
  }

  // Give a group the colours of one of the looks.
  async wear(group, look) {
    this._dress(group, await this.layers.colors(look, group));
  }

  // Draw from a pose in radians, `size` rays along each edge.
  // coarse: larger tiles, and no sums of class scores; for a head that moves.
  draw({ yaw = 0, pitch = 0, view = "face", size = this.canvas.width, coarse = false }) {
    const { gl } = this;
    if (this.canvas.width !== size) this.canvas.width = this.canvas.height = size;
    const camera = this._camera(yaw, pitch), tiles = coarse ? TILES.moving : TILES.still;
    const labelled = !coarse || !this.quick ? "exact" : view === "face" ? "quick" : "named";
    const kind = view === "depth" || view === "normals" ? "depth" : labelled;
    this._sort(camera, tiles, kind, view === "face" ? "group" : view === "labels" && coarse ? "class" : "", coarse && kind !== "depth");
    const normals = view === "normals";
    if (normals) this._depthTarget(size);
    else gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, size, size);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const values = { camera, tiles, size, painted: view === "face", exact: normals };
    for (const [name, batch] of this.batches) if (batch.used) this._drawn(name, batch, values);
    if (normals) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      this._everywhere(NORMALS, { size });
    }
  }

  // The picture just drawn, RGBA bytes, top row first; to be asked for before the browser shows it.
  pixels() {
    const { gl, canvas } = this, { width } = canvas;
    const bytes = new Uint8Array(4 * width * width), flipped = new Uint8Array(bytes.length);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.readPixels(0, 0, width, width, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    for (let y = 0; y < width; y++)
      flipped.set(bytes.subarray(4 * width * y, 4 * width * (y + 1)), 4 * width * (width - 1 - y));
    return flipped;
  }

  _camera(yaw, pitch) {
    const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
    const back = [-sy * cp, -sp, cy * cp], right = [cy, 0, sy];
    const up = [back[1] * sy, back[2] * cy - back[0] * sy, -back[1] * cy];
    return [...right, ...up, ...back];
  }

  // Tiles by the program that draws them.
  _sort(camera, tiles, kind, by, moving) {
    const { layers, groups } = this.layers.header, { order, owner, found } = this.tiles;
    for (const batch of this.batches.values()) batch.used = 0;
    const indices = new Uint8Array(layers);
    this.tiles.look(camera, tiles, { by, moving }, (x, y, shown, sure) => {
      if (sure && by === "class") return this._batch("solid", 1).add(x, y, 1, found, owner, 0);
      for (let j = 0; j < shown; j++) indices[j] = (sure ? owner[j] * layers : 0) + order[j];
      this._batch(sure ? "plain" : kind, shown).add(x, y, shown, found, indices, sure ? layers * groups.length : 0);
    });
  }

  _batch(kind, shown) {
    const { layers } = this.layers.header;
    const even = kind === "plain" || kind === "solid" ? shown : 2 * Math.ceil(shown / 2);
    const count = even <= EXACT ? even : Math.max(even, layers), name = `${kind} ${count}`;
    if (!this.batches.has(name)) this.batches.set(name, new Batch(count));
    return this.batches.get(name);
  }

  _drawn(name, batch, values) {
    const { gl } = this, [kind] = name.split(" "), { count, words, fours } = batch;
    const sizes = { count, layers: this.layers.header.layers, quads: this.quads, painted: kind === "quick" };
    const source = { plain, depth, solid, quick, named: quick }[kind] ?? mixed;
    this._use(this._program(corner(count), source(sizes)), values);
    gl.bindVertexArray(this.corners);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, batch.integers.subarray(0, batch.used), gl.STREAM_DRAW);
    const attributes = 1 + fours + Math.ceil(count / 16);
    for (let i = 0; i < this.attributes; i++) gl.disableVertexAttribArray(i);
    for (let i = 0; i < attributes; i++) {
      gl.enableVertexAttribArray(i);
      const at = i && 4 * (4 * i - 3);
      if (!i) gl.vertexAttribPointer(i, 2, gl.UNSIGNED_SHORT, false, 4 * words, 0);
      else if (i <= fours) gl.vertexAttribPointer(i, 4, gl.FLOAT, false, 4 * words, at);
      else gl.vertexAttribIPointer(i, 4, gl.UNSIGNED_INT, 4 * words, at);
    }
    this.attributes = attributes;
    gl.drawElements(gl.TRIANGLES, (6 * batch.used) / (4 * words), gl.UNSIGNED_INT, 0);
  }

  _everywhere(source, values) {
    const { gl } = this;
    this._use(this._program(EVERYWHERE, source), values);
    gl.bindVertexArray(this.nothing);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Two triangles for each of the most tiles.
  _quads() {
    const { gl } = this, indices = new Uint32Array(6 * TILES.still ** 2);
    for (let tile = 0; tile < TILES.still ** 2; tile++)
      indices.set([0, 1, 2, 2, 1, 3].map((c) => 4 * tile + c), 6 * tile);
    this.corners = gl.createVertexArray();
    this.buffer = gl.createBuffer();
    this.attributes = 0;
    gl.bindVertexArray(this.corners);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
  }

  // Colours of a group, a picture for each layer, with the layer's opacity.
  _dress(group, pictures) {
    const { gl } = this, h = this.layers.header;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, h.width, h.height);
    pictures.forEach((picture, layer) => {
      gl.activeTexture(gl.TEXTURE0 + 8);
      gl.bindTexture(gl.TEXTURE_2D, this.textures.picture);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, gl.RGBA, gl.UNSIGNED_BYTE, picture);
      picture.close();
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, this.textures.colors, 0,
        group * h.layers + layer);
      this._everywhere(JOINED, { layer });
    });
  }

  _depthTarget(size) {
    const { gl } = this;
    if (this.depthSize !== size || !this.textures.depths) {
      gl.deleteTexture(this.textures.depths ?? null);
      this._plain("depths", size, size);
      this.depthSize = size;
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.textures.depths, 0);
  }

  // Planes of classes -> four classes a texel.
  _scores(planes) {
    const h = this.layers.header, area = h.width * h.height;
    const packed = new Uint8Array(4 * area * h.layers * this.quads);
    for (let c = 0; c < h.classes.length; c++)
      for (let k = 0; k < h.layers; k++) {
        const from = (c * h.layers + k) * area;
        let to = 4 * area * (k * this.quads + (c >> 2)) + (c & 3);
        for (let i = 0; i < area; i++, to += 4) packed[to] = planes[from + i];
      }
    return packed;
  }

  // Bytes to be drawn to or uploaded, and read texel by texel.
  _plain(name, width, height) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + 8);
    this.textures[name] = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, width, height);
    this._filter(gl.TEXTURE_2D, gl.NEAREST);
  }

  _array(name, depth, data) {
    const { gl } = this, { width, height } = this.layers.header;
    gl.activeTexture(gl.TEXTURE0 + 8);
    this.textures[name] = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.textures[name]);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA8, width, height, depth);
    this._filter(gl.TEXTURE_2D_ARRAY, gl.LINEAR);
    if (data) gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, 0, width, height, depth, gl.RGBA, gl.UNSIGNED_BYTE, data);
  }

  _filter(target, kind) {
    const { gl } = this;
    for (const [key, value] of [
      [gl.TEXTURE_MIN_FILTER, kind], [gl.TEXTURE_MAG_FILTER, kind],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) gl.texParameteri(target, key, value);
  }

  _use(program, values) {
    const { gl } = this, h = this.layers.header;
    gl.useProgram(program.program);
    const boxed = ([left, right, bottom, top]) => [left, top, 1 / (right - left), 1 / (bottom - top)];
    const classes = new Float32Array(16 * this.quads);
    h.classes.forEach((c, i) => classes.set([...c.color.map((v) => v / 255), c.group], 4 * i));
    program.set({
      box: boxed(h.box), planeBox: boxed(h.planeBox), near: h.near, far: h.far,
      halfExtent: h.halfExtent, planeZ: h.planeZ, classColors: classes, ...values,
    });
    [...ARRAYS, ...PLAIN].forEach((name, unit) => {
      const place = program.places[name];
      if (!place) return;
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(PLAIN.includes(name) ? gl.TEXTURE_2D : gl.TEXTURE_2D_ARRAY, this.textures[name]);
      gl.uniform1i(place.at, unit);
    });
  }

  // Compiled once, also for the faces to come.
  _program(vertices, fragments) {
    const { gl, programs } = this, source = vertices + fragments;
    if (programs.has(source)) return programs.get(source);
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertices], [gl.FRAGMENT_SHADER, fragments]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost())
        throw new Error(gl.getShaderInfoLog(shader));
    }
    gl.linkProgram(program);
    const places = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const { name, type } = gl.getActiveUniform(program, i);
      places[name.replace("[0]", "")] = { at: gl.getUniformLocation(program, name), type };
    }
    const set = (values) => {
      for (const [name, value] of Object.entries(values)) {
        const place = places[name];
        if (!place) continue;
        if (place.type === gl.FLOAT) gl.uniform1f(place.at, value);
        else if (place.type === gl.INT || place.type === gl.BOOL) gl.uniform1i(place.at, value);
        else if (place.type === gl.FLOAT_VEC4) gl.uniform4fv(place.at, value);
        else if (place.type === gl.FLOAT_MAT3) gl.uniformMatrix3fv(place.at, false, value);
      }
    };
    const made = { program, places, set };
    programs.set(source, made);
    return made;
  }
}
