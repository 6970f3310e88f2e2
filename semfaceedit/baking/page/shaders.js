// GLSL of the layers: where rays meet the surfaces, and what they show there (Eq. 2).

const XYZW = "xyzw";
const unrolled = (count, text) => Array.from({ length: count }, (_, index) => text(index)).join("\n");
const at = (k) => `t${k >> 2}.${XYZW[k % 4]}`;  // the distance to surface k
const place = (k, layers) =>  // in a layer, where the ray meets it
  (k === layers - 1 ? "planeAt" : `texel(origin + ${at(k)} * direction, box)`);
// Of 32 bits in a uvec4; surfaces beyond them count as there.
const bitOf = (bits, k) => (k < 32 ? `${bits}.${XYZW[k >> 3]} |= ${1 << k % 8}u` : "");
const hasBit = (bits, k) => (k < 32 ? `(${bits}.${XYZW[k >> 3]} & ${1 << k % 8}u) != 0u` : "true");
const someOf = (bits, set) => (set < 8 ? `(${bits}.${XYZW[set >> 1]} & ${15 << 4 * (set % 2)}u) != 0u` : "true");

const RAYS = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;
uniform sampler2DArray heights;  // four surfaces a layer, world z less the mean of each
uniform mat3 camera;             // right, up, back: columns
uniform vec4 box, planeBox;      // left, top, 1 / width, 1 / height (the height is negative)
uniform float near, far, halfExtent, planeZ, gridSize;
uniform vec4 heightMeans[SETS];
const float MISSED = 3e4;

vec3 rayThrough(vec2 place) {    // place in [0, 1], from the lower left
  vec2 p = (2. * place - 1.) * halfExtent;
  return normalize(camera * vec3(p, -1.));
}

// Distances less 1 to four surfaces: the first interval of the coarse samples in which the ray
// enters, and one linear interpolation in it. Three samples more at each end keep the distances
// continuous where a surface leaves the range.
vec4 march(vec3 origin, vec3 direction, int set) {
  const float step_ = 1. / float(SAMPLES - 1);
  float interval = (far - near) * step_;
  vec4 found = vec4(MISSED), before = vec4(-1.);
  for (int i = -3; i < SAMPLES + 3; i++) {
    float t = near + interval * float(i);
    vec3 p = origin + t * direction;
    vec2 uv = (p.xy - box.xy) * box.zw * ((gridSize - 1.) / gridSize) + .5 / gridSize;
    vec4 above = p.z - heightMeans[set] - textureLod(heights, vec3(uv, float(set)), 0.);
    vec4 crossing = t - 1. - interval * above / min(above - before, -1e-9);
    bvec4 entered = bvec4(uvec4(lessThan(above, vec4(0.))) * uvec4(greaterThanEqual(before, vec4(0.))));
    bvec4 open = bvec4(uvec4(greaterThan(found, vec4(1e3))) + uvec4(lessThan(found, vec4(near - 1.))));
    found = mix(found, crossing, vec4(uvec4(entered) * uvec4(open)));
    before = above;
    if (p.z < planeZ - .025) break;
  }
  return found;
}
`;

// Distances on a coarse grid of rays; the grid's outermost nodes lie on the picture's border.
export const DISTANCES = RAYS + `
uniform float nodes;
uniform int set;
out vec4 distances;
void main() {
  vec2 place = (gl_FragCoord.xy - .5) / (nodes - 1.);
  distances = march(camera[2], rayThrough(place), set);
}`;

// Which surfaces may show anything around each node: a bit each, in the four bytes of a texel.
export const masks = (layers) => RAYS + `
uniform sampler2DArray grid, occupancy;
uniform float nodes;
out vec4 bytes;
void main() {
  vec2 place = (gl_FragCoord.xy - .5) / (nodes - 1.);
  vec3 origin = camera[2], direction = rayThrough(place);
  uvec4 bits = uvec4(0u);
  vec4 d;
${unrolled(layers - 1, (k) => `
  ${k % 4 ? "" : `d = texelFetch(grid, ivec3(gl_FragCoord.xy, ${k >> 2}), 0);`}
  if (shown(origin, direction, d.${XYZW[k % 4]}, ${k}.)) ${bitOf("bits", k)};`)}
  bytes = vec4(bits) / 255.;
}`.replace("out vec4 bytes;", `out vec4 bytes;
bool shown(vec3 origin, vec3 direction, float d, float k) {
  vec2 uv = ((origin + (d + 1.) * direction).xy - box.xy) * box.zw;
  return d > 1. || textureLod(occupancy, vec3(uv, k), 0.).r > 0.;
}`);

// The picture. The class that leads behind and at each surface (Eq. 2) decides whose colour the
// surface has there. Where one class holds more than half of the running sum at every surface that
// shows, it leads for sure, and its index is in the layer; elsewhere all class scores are composited.
// quick: elsewhere the nearest texel's class stands for a mixture. That is a program of its own, since
// what it leaves out costs time without a GPU even where no ray gets there.
export const picture = ({ layers, quads, quick }) => RAYS + `
uniform sampler2DArray grid;     // distances less 1, of DISTANCES
uniform sampler2D maskBits;
uniform sampler2DArray sheets;   // opacity, share of the leading class, its index, its group
uniform sampler2DArray scores;   // ${quads} layers a surface, four classes each
uniform sampler2DArray colors;   // ${layers} layers a group
uniform vec4 classColors[${4 * quads}];  // and the group in w
uniform float nodes, size;
uniform int view;                // 0 face, 1 labels, 2 depth, 3 depth as bytes
out vec4 color;

vec3 colorOf(vec2 uv, float group, float k) {
  return textureLod(colors, vec3(uv, group * ${layers}. + k), 0.).rgb;
}

vec2 texel(vec3 p, vec4 b) { return (p.xy - b.xy) * b.zw; }

vec4 met(vec3 origin, vec3 direction, vec2 node, int set) {
  vec4 d = textureLod(grid, vec3(node, float(set)), 0.);
${quick ? "" : `
  // Between a node that misses a surface and one that meets it there is nothing to interpolate.
  uvec4 mixed = uvec4(greaterThan(d, vec4(1.))) * uvec4(lessThan(d, vec4(MISSED * .99)));
  if (any(bvec4(mixed))) d = march(origin, direction, set);`}
  return d + 1.;
}

void main() {
  vec2 at = gl_FragCoord.xy / size;
  vec3 origin = camera[2], direction = rayThrough(at);
  vec2 node = at * (nodes - 1.) + .5;
  uvec4 bits = uvec4(texelFetch(maskBits, ivec2(node), 0) * 255. + .5);
  node /= nodes;
  float plane = (planeZ - origin.z) / min(direction.z, -1e-4), end = min(far, plane);
  vec2 planeAt = texel(origin + plane * direction, planeBox);
  float passing = 1., depth = 0.;
  bool painted = view == 0;
${unrolled(Math.ceil((layers - 1) / 4), (s) => `
  vec4 t${s} = vec4(9.);
  if (${someOf("bits", s)}) t${s} = met(origin, direction, node, ${s});`)}
  ${unrolled(layers, (k) => `vec4 sheet${k} = vec4(0.);`)}
${unrolled(layers - 1, (k) => `
  if (${hasBit("bits", k)} && passing > .002 && ${at(k)} >= near && ${at(k)} <= end) {
    sheet${k} = textureLod(sheets, vec3(${place(k, layers)}, ${k}.), 0.);
    if (sheet${k}.r < .002) sheet${k}.r = 0.;
    depth += passing * sheet${k}.r * ${at(k)};
    passing *= 1. - sheet${k}.r;
  }`)}
  if (passing > .002) {
    sheet${layers - 1} = textureLod(sheets, vec3(planeAt, ${layers - 1}.), 0.);
    sheet${layers - 1}.r = 1.;
    depth += passing * plane;
    passing = 0.;
  }
  if (view == 3) {
    float x = clamp((depth / (1. - passing) - .8) / .8, 0., 1.) * 16777215.;
    vec3 bytes = vec3(floor(x / 65536.), floor(mod(x, 65536.) / 256.), mod(floor(x), 256.));
    color = vec4(bytes / 255., 1.);
    return;
  }
  if (view == 2) {
    color = vec4(vec3(clamp((1.12 - depth / (1. - passing)) / .22, 0., 1.)), 1.);
    return;
  }
  // Back to front with bounds: held is the least that the leading class can have of the sum.
  float held = 0., most = -1.;
  vec2 leader = vec2(-1.);  // index and group
  vec3 seen = vec3(0.);
  bool sure = true;
${unrolled(layers, (index) => { const k = layers - 1 - index; return `
  if (sheet${k}.r > 0.) {
    vec4 sheet = sheet${k};
    vec2 uv = ${place(k, layers)};
    float share = 0., kept = held * (1. - sheet.r);
    if (sheet.g > .502) share = sheet.r * sheet.g;
    ${!quick ? "" : `else {
      share = .6 * sheet.r;
      sheet.ba = texelFetch(sheets, ivec3(uv * vec2(textureSize(sheets, 0).xy), ${k}), 0).ba;
    }`}
    bool same = abs(sheet.b - leader.x) < .001, taken = !same && share > kept;
    held = same ? kept + share : max(share, kept);
    leader = taken ? sheet.ba : leader;
    ${quick ? "" : "sure = sure && held > .502;"}
    seen = mix(seen, colorOf(uv, floor(max(leader.y, 0.) * 255. + .5), ${k}.), sheet.r);
  }`; })}
  int lead = int(leader.x * 255. + .5);
${quick ? "" : `
  if (!sure) {
    ${unrolled(quads, (q) => `vec4 c${q} = vec4(0.), s${q};`)}
    seen = vec3(0.);
${unrolled(layers, (index) => { const k = layers - 1 - index; return `
    if (sheet${k}.r > 0.) {
      vec2 uv = ${place(k, layers)};
      ${unrolled(quads, (q) => `c${q} = mix(c${q}, textureLod(scores, vec3(uv, ${quads * k + q}.), 0.), sheet${k}.r);`)}
      most = -1.;
      ${unrolled(quads, (q) => [0, 1, 2, 3].map((i) =>
        `if (c${q}.${XYZW[i]} > most) { most = c${q}.${XYZW[i]}; lead = ${4 * q + i}; }`).join("\n      "))}
      if (painted) seen = mix(seen, colorOf(uv, classColors[lead].w, ${k}.), sheet${k}.r);
    }`; })}
  }`}
  color = vec4(painted ? seen : classColors[lead].rgb, 1.);
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
