// What was painted and not applied, kept by the browser for this tab: a reload, a crash of the editor or
// a lost connection loses none of it. It is found again by the map that it was painted on.

const PREFIX = "painted on ";
const WAIT = 300; // milliseconds without a stroke until it is kept

let timer = null;

function key(original, size) {
  let hash = 2166136261;
  for (const label of original) hash = Math.imul(hash ^ label, 16777619);
  return `${PREFIX}${size} ${hash >>> 0}`;
}

export function keepStrokes(painter) {
  clearTimeout(timer);
  timer = setTimeout(() => keepNow(painter), WAIT);
}

export function keepNow(painter) {
  clearTimeout(timer);
  if (!painter.size) return;
  const place = key(painter.original, painter.size);
  if (!painter.painted) {
    sessionStorage.removeItem(place);
    return;
  }
  const text = Array.from(painter.labels, (label) => String.fromCharCode(32 + label)).join("");
  try {
    sessionStorage.setItem(place, text);
  } catch { // no room: what is older goes
    for (const old of Object.keys(sessionStorage)) if (old.startsWith(PREFIX)) sessionStorage.removeItem(old);
    try {
      sessionStorage.setItem(place, text);
    } catch { /* a map that never fits */ }
  }
}

// What `Painter.load` takes up: one stroke on the original map; undefined where there is none.
export function keptStrokes(original, size, revision) {
  const text = sessionStorage.getItem(key(original, size));
  if (text?.length !== original.length) return undefined;
  const labels = Uint8Array.from(text, (letter) => letter.charCodeAt(0) - 32);
  return { labels, strokes: [{ labels: original.slice(), name: "painted map", revision }], undone: [] };
}
