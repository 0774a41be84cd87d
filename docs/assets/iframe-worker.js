// Pages opened from disk may start no worker, and the search is one: there an iframe stands for it.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      document.body.appendChild(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => {
        const copy = structuredClone(data);
        setTimeout(() => this.onmessage && this.onmessage({ data: copy }));
      };
      const script = this.inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      this.ready = new Promise((loaded) => (script.onload = loaded));
      this.inside.document.body.appendChild(script);
    }
    postMessage(data) {
      const copy = this.inside.structuredClone(data);
      this.ready.then(() => this.inside.onmessage({ data: copy }));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
