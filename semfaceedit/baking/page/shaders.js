// GLSL of the layers: where rays meet the surfaces, and what they show there (Eq. 2).

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

export const PICTURE = RAYS + `
uniform sampler2DArray grid;     // distances less 1, of DISTANCES
uniform sampler2DArray alphas;   // a layer a surface, the plane last
uniform sampler2DArray scores;   // QUADS layers a surface, four classes each
uniform sampler2DArray colors;   // LAYERS layers a group
uniform vec4 classColors[4 * QUADS];  // and the group in w
uniform float nodes, size;
uniform int view;                // 0 face, 1 labels, 2 depth, 3 depth as bytes
out vec4 color;

vec2 texel(vec3 p, int layer) {
  vec4 b = layer == LAYERS - 1 ? planeBox : box;
  return (p.xy - b.xy) * b.zw;
}

void main() {
  vec2 place = gl_FragCoord.xy / size;
  vec3 origin = camera[2], direction = rayThrough(place);
  vec2 node = (place * (nodes - 1.) + .5) / nodes;
  float t[LAYERS], a[LAYERS];
  for (int s = 0; s < SETS; s++) {
    vec4 d = textureLod(grid, vec3(node, float(s)), 0.);
    // Between a node that misses a surface and one that meets it there is nothing to interpolate.
    uvec4 mixed = uvec4(greaterThan(d, vec4(1.))) * uvec4(lessThan(d, vec4(MISSED * .99)));
    if (any(bvec4(mixed))) d = march(origin, direction, s);
    for (int i = 0; i < 4; i++) if (4 * s + i < LAYERS - 1) t[4 * s + i] = d[i] + 1.;
  }
  float plane = (planeZ - origin.z) / min(direction.z, -1e-4);
  t[LAYERS - 1] = plane;

  // Front to back: opacities, and the last surface that any light passes to.
  float passing = 1., depth = 0.;
  int last = LAYERS - 1;
  for (int k = 0; k < LAYERS; k++) {
    a[k] = 0.;
    bool met = k == LAYERS - 1 || (t[k] >= near && t[k] <= far && t[k] < plane);
    if (met) a[k] = textureLod(alphas, vec3(texel(origin + t[k] * direction, k), float(k)), 0.).r;
    depth += passing * a[k] * t[k];
    passing *= 1. - a[k];
    if (passing < .002) { last = k; break; }
  }
  if (view == 3) {
    float x = clamp((depth / (1. - passing) - .8) / .5, 0., 1.) * 16777215.;
    vec3 bytes = vec3(floor(x / 65536.), floor(mod(x, 65536.) / 256.), mod(floor(x), 256.));
    color = vec4(bytes / 255., 1.);
    return;
  }
  if (view == 2) {
    color = vec4(vec3(clamp((1.12 - depth / (1. - passing)) / .22, 0., 1.)), 1.);
    return;
  }

  // Back to front: the class that leads behind and at each surface decides whose colour it has.
  vec4 running[QUADS];
  for (int q = 0; q < QUADS; q++) running[q] = vec4(0.);
  vec3 seen = vec3(0.);
  int lead = 0;
  for (int k = LAYERS - 1; k >= 0; k--) {
    if (k > last || a[k] < .002) continue;
    vec2 uv = texel(origin + t[k] * direction, k);
    float most = -1.;
    for (int q = 0; q < QUADS; q++) {
      vec4 s = textureLod(scores, vec3(uv, float(QUADS * k + q)), 0.);
      vec4 c = a[k] * s + (1. - a[k]) * running[q];
      running[q] = c;
      if (c.x > most) { most = c.x; lead = 4 * q; }
      if (c.y > most) { most = c.y; lead = 4 * q + 1; }
      if (c.z > most) { most = c.z; lead = 4 * q + 2; }
      if (c.w > most) { most = c.w; lead = 4 * q + 3; }
    }
    if (view == 0) {
      float layer = classColors[lead].w * float(LAYERS) + float(k);
      seen = mix(seen, textureLod(colors, vec3(uv, layer), 0.).rgb, a[k]);
    }
  }
  color = vec4(view == 0 ? seen : classColors[lead].rgb, 1.);
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
  float t = .8 + .5 * (floor(b.r) * 65536. + floor(b.g) * 256. + floor(b.b)) / 16777215.;
  vec2 p = (2. * (vec2(at) + .5) / size - 1.) * halfExtent;
  return t * normalize(vec3(p, -1.));
}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  vec3 across = point(at + ivec2(1, 0)) - point(at - ivec2(1, 0));
  vec3 up = point(at + ivec2(0, 1)) - point(at - ivec2(0, 1));
  color = vec4(.5 + .5 * normalize(cross(across, up)), 1.);
}`;

export const EVERYWHERE = `#version 300 es
void main() {
  gl_Position = vec4(4. * float(gl_VertexID & 1) - 1., 4. * float(gl_VertexID >> 1) - 1., 0., 1.);
}`;
