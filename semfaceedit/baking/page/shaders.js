// GLSL of the layers: what rays show of those that their tile may show (Eq. 2).

const XYZW = "xyzw";
const unrolled = (count, text) => Array.from({ length: count }, (_, index) => text(index)).join("\n");
const fours = (count) => Math.ceil(count / 4);
const sixteens = (count) => Math.ceil(count / 16);
const reach = (j) => `t${j >> 2}.${XYZW[j % 4]}`;  // the distance to the j-th layer of a tile

// A corner of a tile: its place in the picture, distances to the tile's layers along the axis of view,
// and the layers' indices, four to an integer.
export const corner = (count) => `#version 300 es
layout(location = 0) in vec2 place;
uniform float tiles;
${unrolled(fours(count), (i) => `layout(location = ${1 + i}) in vec4 d${i}; out vec4 t${i};`)}
${unrolled(sixteens(count), (i) => `layout(location = ${1 + fours(count) + i}) in uvec4 l${i}; flat out uvec4 m${i};`)}
void main() {
  gl_Position = vec4(2. * place / tiles - 1., 0., 1.);
${unrolled(fours(count), (i) => `  t${i} = d${i};`)}
${unrolled(sixteens(count), (i) => `  m${i} = l${i};`)}
}`;

const RAYS = (count, layers) => `#version 300 es
precision highp float;
precision highp int;
precision mediump sampler2DArray;
uniform mat3 camera;             // right, up, back: columns
uniform vec4 box, planeBox;      // left, top, 1 / width, 1 / height (the height is negative)
uniform float near, far, halfExtent, planeZ, size;
${unrolled(fours(count), (i) => `in vec4 t${i};`)}
${unrolled(sixteens(count), (i) => `flat in uvec4 m${i};`)}
out vec4 color;

// Along the axis of view this is of length one, so distances are linear in a flat tile.
vec3 direction() {
  vec2 p = (2. * gl_FragCoord.xy / size - 1.) * halfExtent;
  return camera * vec3(p, -1.);
}
${unrolled(count, (j) => `float layer${j}() { return float((m${j >> 4}.${XYZW[(j >> 2) % 4]} >> ${8 * (j % 4)}u) & 255u); }`)}
`;

// Where in the j-th layer: start + distance * ahead; the last of a tile's layers alone can be the plane.
const lines = (count, layers) => `
  vec3 ray = direction();
  vec2 start = (camera[2].xy - box.xy) * box.zw, ahead = ray.xy * box.zw, lastStart = start, lastAhead = ahead;
  bool onPlane = mod(layer${count - 1}(), ${layers}.) == ${layers - 1}.;
  if (onPlane) {
    lastStart = (camera[2].xy - planeBox.xy) * planeBox.zw;
    lastAhead = ray.xy * planeBox.zw;
  }`;
// Whether a ray reaches its tile's j-th layer between near and far and before the plane.
const inside = (j, count) =>
  `(${reach(j)} * stretch >= near && ${reach(j)} <= end${j === count - 1 ? " || onPlane" : ""})`;
const reached = (j, count) => `passing > .002 && ${inside(j, count)}`;
const place = (j, count) => (j === count - 1 ? `lastStart + ${reach(j)} * lastAhead` : `start + ${reach(j)} * ahead`);

// The class with the largest of the sums c0, c1, ...
const leading = (quads) => unrolled(quads, (q) => [0, 1, 2, 3].map((i) =>
  `if (c${q}.${XYZW[i]} > most) { most = c${q}.${XYZW[i]}; lead = ${4 * q + i}; }`).join("\n"));

// Tiles in which every layer has one group's colours: indices name layers of `colors`.
export const plain = ({ count, layers }) => RAYS(count, layers) + `
uniform sampler2DArray colors;   // and opacity, a layer for each group and surface
void main() {
${lines(count, layers)}
  vec3 seen = vec3(0.);
  float passing = 1.;
  vec4 c;
${unrolled(count, (j) => `
  ${j ? `if (passing > .002) {` : "{"}
    c = textureLod(colors, vec3(${place(j, count)}, layer${j}()), 0.);
    seen += passing * c.a * c.rgb;
    passing *= 1. - c.a;
  }`)}
  color = vec4(seen, 1.);
}`;

// Tiles that show one class.
export const solid = ({ layers, quads }) => RAYS(1, layers) + `
uniform vec4 classColors[${4 * quads}];
void main() { color = vec4(classColors[int(layer0())].rgb, 1.); }`;

// Distances, as grey or (exact) as bytes for the normals.
export const depth = ({ count, layers }) => RAYS(count, layers) + `
uniform sampler2DArray colors;
uniform bool exact;
void main() {
${lines(count, layers)}
  float passing = 1., sum = 0., stretch = length(ray), end = min(far / stretch, (planeZ - camera[2].z) / min(ray.z, -1e-4));
${unrolled(count, (j) => `
  if (${reached(j, count)}) {
    float a = textureLod(colors, vec3(${place(j, count)}, layer${j}()), 0.).a;
    sum += passing * a * ${reach(j)};
    passing *= 1. - a;
  }`)}
  float t = stretch * sum / max(1. - passing, 1e-4);
  if (exact) {
    float x = clamp((t - .8) / .8, 0., 1.) * 16777215.;
    color = vec4(floor(x / 65536.), floor(mod(x, 65536.) / 256.), mod(floor(x), 256.), 255.) / 255.;
  } else color = vec4(vec3(clamp((1.12 - t) / .22, 0., 1.)), 1.);
}`;

// All other tiles, and labels. The class that leads behind and at each surface (Eq. 2) decides whose
// colour the surface has there. Where one class holds more than half of the running sum at every surface
// that shows, it leads for sure, and its index is in the layer; elsewhere all class scores are composited.
export const mixed = ({ count, layers, quads }) => RAYS(count, layers) + `
uniform sampler2DArray sheets;   // opacity, share of the leading class, its index, its group
uniform sampler2DArray scores;   // ${quads} layers a surface, four classes each
uniform sampler2DArray colors;   // ${layers} layers a group
uniform vec4 classColors[${4 * quads}];  // and the group in w
uniform bool painted;            // else labels

vec3 colorOf(vec2 uv, float group, float k) {
  return textureLod(colors, vec3(uv, group * ${layers}. + k), 0.).rgb;
}

void main() {
${lines(count, layers)}
  float passing = 1., stretch = length(ray), end = min(far / stretch, (planeZ - camera[2].z) / min(ray.z, -1e-4));
${unrolled(count, (j) => `
  vec4 sheet${j} = vec4(0.);
  if (${reached(j, count)}) {
    sheet${j} = textureLod(sheets, vec3(${place(j, count)}, layer${j}()), 0.);
    if (sheet${j}.r < .002) sheet${j}.r = 0.;
    passing *= 1. - sheet${j}.r;
  }`)}
  // Back to front with bounds: held is the least that the leading class can have of the sum.
  float held = 0., most = -1.;
  vec2 leader = vec2(-1.);  // index and group
  vec3 seen = vec3(0.);
  bool sure = true;
${unrolled(count, (index) => { const j = count - 1 - index; return `
  if (sheet${j}.r > 0.) {
    vec4 sheet = sheet${j};
    vec2 uv = ${place(j, count)};
    float share = 0., kept = held * (1. - sheet.r);
    if (sheet.g > .502) share = sheet.r * sheet.g;
    bool same = abs(sheet.b - leader.x) < .001, taken = !same && share > kept;
    held = same ? kept + share : max(share, kept);
    leader = taken ? sheet.ba : leader;
    sure = sure && held > .502;
    if (painted) seen = mix(seen, colorOf(uv, floor(max(leader.y, 0.) * 255. + .5), layer${j}()), sheet.r);
  }`; })}
  int lead = int(leader.x * 255. + .5);
  if (!sure) {
    ${unrolled(quads, (q) => `vec4 c${q} = vec4(0.);`)}
    seen = vec3(0.);
${unrolled(count, (index) => { const j = count - 1 - index; return `
    if (sheet${j}.r > 0.) {
      vec2 uv = ${place(j, count)};
      float first = ${quads}. * layer${j}();
      ${unrolled(quads, (q) => `c${q} = mix(c${q}, textureLod(scores, vec3(uv, first + ${q}.), 0.), sheet${j}.r);`)}
      most = -1.;
      ${leading(quads)}
      if (painted) seen = mix(seen, colorOf(uv, classColors[lead].w, layer${j}()), sheet${j}.r);
    }`; })}
  }
  color = vec4(painted ? seen : classColors[lead].rgb, 1.);
}`;

// The same for a head that moves, where the scores of a point sum to one: Eq. 2's sums of whole groups decide whose
// colour a surface has (painted); for labels, those of all classes. Without a GPU a ray pays for every branch, so
// there are none.
export const quick = ({ count, layers, quads, painted }) => RAYS(count, layers) + `
uniform sampler2DArray masses;   // opacity times the score of each of four groups
${painted ? "uniform sampler2DArray colors;   // a layer for each group and surface" : `
uniform sampler2DArray scores;   // ${quads} layers a surface, four classes each
uniform vec4 classColors[${4 * quads}];`}

void main() {
${lines(count, layers)}
  float stretch = length(ray), end = min(far / stretch, (planeZ - camera[2].z) / min(ray.z, -1e-4));
  vec2 uv;
  vec4 here;
  float alpha;
${painted ? "  vec3 seen = vec3(0.);\n  vec4 sums = vec4(0.), c;\n  float top, group;"
    : unrolled(quads, (q) => `  vec4 c${q} = vec4(0.);`)}
${unrolled(count, (index) => { const j = count - 1 - index, met = `met${j}`; return `
  uv = ${place(j, count)};
  float ${met} = ${inside(j, count)} ? 1. : 0.;
  here = ${met} * textureLod(masses, vec3(uv, layer${j}()), 0.);
  alpha = dot(here, vec4(1.));
${painted ? `
  sums = sums * (1. - alpha) + here;
  top = max(max(sums.x, sums.y), max(sums.z, sums.w));
  group = sums.x == top ? 0. : sums.y == top ? 1. : sums.z == top ? 2. : 3.;
  c = textureLod(colors, vec3(uv, group * ${layers}. + layer${j}()), 0.);
  seen = mix(seen, c.rgb, ${met} * c.a);`
    : unrolled(quads, (q) => `  c${q} = mix(c${q}, textureLod(scores, vec3(uv, ${quads}. * layer${j}() + ${q}.), 0.), alpha);`)}`; })}
${painted ? "  color = vec4(seen, 1.);" : `
  float most = -1.;
  int lead = 0;
  ${leading(quads)}
  color = vec4(classColors[lead].rgb, 1.);`}
}`;

// The colours of a layer and its opacity, from two pictures.
export const JOINED = `#version 300 es
precision highp float;
precision highp sampler2DArray;
uniform sampler2D picture;
uniform sampler2DArray sheets;
uniform int layer;
out vec4 color;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  color = vec4(texelFetch(picture, at, 0).rgb, texelFetch(sheets, ivec3(at, layer), 0).r);
}`;

// Normals of the surface that the depth stands for, by central differences.
export const NORMALS = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D depths;
uniform float halfExtent, size;
out vec4 color;
vec3 point(ivec2 at) {
  at = clamp(at, ivec2(0), ivec2(int(size) - 1));
  vec3 b = texelFetch(depths, at, 0).rgb * 255. + .5;
  float t = .8 + .8 * (floor(b.r) * 65536. + floor(b.g) * 256. + floor(b.b)) / 16777215.;
  vec2 p = (2. * (vec2(at) + .5) / size - 1.) * halfExtent;
  return t * normalize(vec3(p, -1.));
}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int wide = max(1, int(size) / 256);  // smooths the facets of the surfaces
  vec3 across = point(at + ivec2(wide, 0)) - point(at - ivec2(wide, 0));
  vec3 up = point(at + ivec2(0, wide)) - point(at - ivec2(0, wide));
  color = vec4(.5 + .5 * normalize(cross(across, up)), 1.);
}`;

export const EVERYWHERE = `#version 300 es
void main() {
  gl_Position = vec4(4. * float(gl_VertexID & 1) - 1., 4. * float(gl_VertexID >> 1) - 1., 0., 1.);
}`;
