// The other end of messages.py: four bytes of header length, a JSON header, a payload.

export function pack(header, payload = new Uint8Array(0)) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const message = new Uint8Array(4 + text.length + payload.length);
  new DataView(message.buffer).setUint32(0, text.length, true);
  message.set(text, 4);
  message.set(payload, 4 + text.length);
  return message;
}

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return [JSON.parse(text), new Uint8Array(buffer, 4 + length)];
}

const WRONG_KEY = 4403; // of server.py

// A socket that comes back: `heard(header, payload)` for every message, `changed(open, refused)` when
// it opens or is lost, or refused for the key in the address.
export class Socket {
  constructor(url, heard, changed) {
    this.url = url;
    this.heard = heard;
    this.changed = changed;
    this.connect();
  }

  connect() {
    this.socket = new WebSocket(this.url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.changed(true, false);
    this.socket.onmessage = (event) => this.heard(...unpack(event.data));
    this.socket.onclose = (event) => {
      const refused = event.code === WRONG_KEY;
      this.changed(false, refused);
      if (!refused) setTimeout(() => this.connect(), 1000);
    };
  }

  send(header, payload) {
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(pack(header, payload));
    return true;
  }
}
