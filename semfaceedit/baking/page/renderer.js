// Draws a baked face with WebGL 2: one pass for distances on a coarse grid, one for the picture.

import { BLOCKS, leaders, occupancy } from "./layers.js";
import { DISTANCES, EVERYWHERE, NORMALS, masks, picture } from "./shaders.js";

export const VIEWS = ["face", "labels", "depth", "normals"];
const MOST_NODES = 129;
const SAMPLED = ["heights", "grid", "occupancy", "maskBits", "sheets", "scores", "colors", "depths"];
const PLAIN = new Set(["maskBits", "depths"]);

export class FaceRenderer {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer.");
    const floats = gl.getExtension("EXT_color_buffer_float");
    if (!floats && !gl.getExtension("EXT_color_buffer_half_float"))
      throw new Error("This page needs drawing to floating-point textures, which is missing here.");
    this.gl = gl;
    // 16 bits of a distance suffice for colours; normals show the steps.
    this.distanceFormat = floats && gl.getExtension("OES_texture_float_linear") ? gl.RGBA32F : gl.RGBA16F;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.bindVertexArray(gl.createVertexArray());
    this.target = gl.createFramebuffer();
    this.textures = {};
    this.programs = {};
  }

  // Take a baked face; the former one is drawn until all of it is there.
  async load(layers) {
    const { gl } = this, h = layers.header;
    const [heights, alpha, scores, ...colors] = await Promise.all([
      layers.heights(), layers.planes("alpha", h.width), layers.planes("scores", h.width),
      ...h.groups.map((_, group) => layers.colors(0, group)),
    ]);
    const sets = Math.ceil((h.layers - 1) / 4), quads = Math.ceil(h.classes.length / 4);
    const definitions = { SETS: sets, SAMPLES: h.samples }, sizes = { layers: h.layers, quads };
    this.distances = this._program("distances", DISTANCES, definitions);
    this.masks = this._program("masks", masks(h.layers), definitions);
    this.picture = this._program("picture", picture({ ...sizes, quick: false }), definitions);
    this.quickPicture = this._program("quickPicture", picture({ ...sizes, quick: true }), definitions);
    this.normals = this._program("normals", NORMALS, {});
    for (const texture of Object.values(this.textures)) gl.deleteTexture(texture);
    Object.assign(this, { layers, sets, quads, textures: {}, nodes: 0 });
    this._heights(heights);
    this._sheets(alpha, scores);
    this._array("scores", gl.RGBA8, h.width, h.height, h.layers * quads, gl.RGBA, gl.UNSIGNED_BYTE,
      this._scores(scores));
    this._array("colors", gl.RGBA8, h.width, h.height, h.layers * h.groups.length);
    colors.forEach((pictures, group) => this._dress(group, pictures));
  }

  // Give a group the colours of one of the looks.
  async wear(group, look) {
    this._dress(group, await this.layers.colors(look, group));
  }

  // Draw from a pose in radians, `size` rays along each edge.
  // coarse: fewer distances, and no sums of class scores; for a head that moves.
  draw({ yaw = 0, pitch = 0, view = "face", size = this.canvas.width, coarse = false }) {
    const { gl } = this;
    if (this.canvas.width !== size) this.canvas.width = this.canvas.height = size;
    const pose = this._pose(yaw, pitch);
    const nodes = Math.min(MOST_NODES, coarse ? Math.max(33, size >> 3) : Math.max(97, size >> 2));
    this._ready(nodes);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, nodes, nodes);
    this._use(this.distances, { ...pose, nodes });
    for (let set = 0; set < this.sets; set++) {
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, this.textures.grid, 0, set);
      this.distances.set({ set });
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
    this._attach(this.textures.maskBits);
    this._use(this.masks, { ...pose, nodes });
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    const normals = view === "normals";
    if (normals) this._depthTarget(size);
    else gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, size, size);
    this._use(coarse ? this.quickPicture : this.picture, { ...pose, nodes, size, view: VIEWS.indexOf(view) });
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    if (normals) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      this._use(this.normals, { size });
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
  }

  // The picture last drawn, RGBA bytes, top row first.
  pixels() {
    const { gl, canvas } = this, { width } = canvas;
    const bytes = new Uint8Array(4 * width * width), flipped = new Uint8Array(bytes.length);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.readPixels(0, 0, width, width, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    for (let y = 0; y < width; y++)
      flipped.set(bytes.subarray(4 * width * y, 4 * width * (y + 1)), 4 * width * (width - 1 - y));
    return flipped;
  }

  _dress(group, pictures) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.textures.colors);
    pictures.forEach((picture, k) => {
      gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, group * pictures.length + k, picture.width,
        picture.height, 1, gl.RGBA, gl.UNSIGNED_BYTE, picture);
      picture.close();
    });
  }

  _pose(yaw, pitch) {
    const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
    const back = [-sy * cp, -sp, cy * cp], right = [cy, 0, sy];
    const up = [back[1] * sy, back[2] * cy - back[0] * sy, -back[1] * cy];
    return { camera: [...right, ...up, ...back] };
  }

  _ready(nodes) {
    if (this.nodes === nodes) return;
    this.gl.deleteTexture(this.textures.grid ?? null);
    this.gl.deleteTexture(this.textures.maskBits ?? null);
    this._array("grid", this.distanceFormat, nodes, nodes, this.sets);
    this._plain("maskBits", nodes);
    this.nodes = nodes;
  }

  _depthTarget(size) {
    if (this.depthSize !== size || !this.textures.depths) {
      this.gl.deleteTexture(this.textures.depths ?? null);
      this._plain("depths", size);
      this.depthSize = size;
    }
    this._attach(this.textures.depths);
  }

  _attach(texture) {
    const { gl } = this;
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  }

  // A square of bytes to draw to, read texel by texel.
  _plain(name, size) {
    const { gl } = this;
    this.textures[name] = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, size, size);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  _heights(values) {
    const { gl } = this, h = this.layers.header, area = h.grid * h.grid;
    const packed = new Float32Array(4 * area * this.sets);
    this.means = new Float32Array(4 * this.sets);
    for (let k = 0; k < h.layers - 1; k++) {
      const plane = values.subarray(k * area, (k + 1) * area);
      const mean = plane.reduce((sum, z) => sum + z, 0) / area;
      this.means[k] = mean;
      const start = 4 * area * Math.floor(k / 4) + (k % 4);
      for (let i = 0; i < area; i++) packed[start + 4 * i] = plane[i] - mean;
    }
    for (let k = h.layers - 1; k < 4 * this.sets; k++) this.means[k] = -10;
    this._array("heights", this.distanceFormat, h.grid, h.grid, this.sets, gl.RGBA, gl.FLOAT, packed);
  }

  // Opacity, share and index of the leading class, and its group; and where there is anything.
  _sheets(alpha, scores) {
    const { gl } = this, h = this.layers.header, { width, height, layers } = h;
    const sheets = leaders(h, alpha, scores), occupied = occupancy(h, alpha);
    this._array("sheets", gl.RGBA8, width, height, layers, gl.RGBA, gl.UNSIGNED_BYTE, sheets);
    this._array("occupancy", gl.R8, BLOCKS, BLOCKS, layers, gl.RED, gl.UNSIGNED_BYTE, occupied);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
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

  _array(name, format, width, height, depth, source, type, data) {
    const { gl } = this;
    this.textures[name] = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.textures[name]);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, format, width, height, depth);
    for (const [key, value] of [
      [gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) gl.texParameteri(gl.TEXTURE_2D_ARRAY, key, value);
    if (data) gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, 0, width, height, depth, source, type, data);
  }

  _use(program, values) {
    const { gl } = this, h = this.layers.header;
    gl.useProgram(program.program);
    const boxed = ([left, right, bottom, top]) => [left, top, 1 / (right - left), 1 / (bottom - top)];
    const classes = new Float32Array(16 * this.quads);
    h.classes.forEach((c, i) => classes.set([...c.color.map((v) => v / 255), c.group], 4 * i));
    program.set({
      box: boxed(h.box), planeBox: boxed(h.planeBox), near: h.near, far: h.far,
      halfExtent: h.halfExtent, planeZ: h.planeZ, gridSize: h.grid, heightMeans: this.means,
      classColors: classes, ...values,
    });
    SAMPLED.forEach((name, unit) => {
      const place = program.places[name];
      if (!place) return;
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(PLAIN.has(name) ? gl.TEXTURE_2D : gl.TEXTURE_2D_ARRAY, this.textures[name]);
      gl.uniform1i(place.at, unit);
    });
    gl.activeTexture(gl.TEXTURE0 + 8);  // uploads bind here, out of the way
  }

  // The program of this name; it is kept for the next face, whose source is mostly the same.
  _program(name, source, definitions) {
    const named = Object.entries(definitions).map(([key, value]) => `#define ${key} ${value}\n`);
    const full = source.replace("#version 300 es\n", "#version 300 es\n" + named.join(""));
    if (this.programs[name]?.full === full) return this.programs[name];
    const { gl } = this, program = gl.createProgram();
    if (this.programs[name]) gl.deleteProgram(this.programs[name].program);
    for (const [kind, text] of [[gl.VERTEX_SHADER, EVERYWHERE], [gl.FRAGMENT_SHADER, full]]) {
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
        else if (place.type === gl.INT) gl.uniform1i(place.at, value);
        else if (place.type === gl.FLOAT_VEC4) gl.uniform4fv(place.at, value);
        else if (place.type === gl.FLOAT_MAT3) gl.uniformMatrix3fv(place.at, false, value);
      }
    };
    return (this.programs[name] = { full, program, places, set });
  }
}
