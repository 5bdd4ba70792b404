// Files and pictures that are dropped: the page's own pictures are known by their address, and a file that no zone takes does not
// leave the page, as a browser would open it in the page's place.

const OWN_PICTURE = /studio\/v1\/images\/(-?\d+)(?:\.png|\/small)/;

/** The id of the picture that was dragged from this page, or from another window of it; null for anything else. */
export function ownPicture(transfer) {
  const own = transfer.getData("text/uri-list").match(OWN_PICTURE);
  return own ? Number(own[1]) : null;
}

/** `read(file)` takes a file that is dropped outside of every zone while `open()`; at other times such a file is refused. */
export function installDrops({ open, read }) {
  const free = (event) => !event.defaultPrevented && [...(event.dataTransfer?.types ?? [])].includes("Files");
  window.addEventListener("dragover", (event) => {
    if (!free(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = open() ? "copy" : "none";
  });
  // A tile shows a small version: what is dragged is the picture.
  document.addEventListener("dragstart", ({ target, dataTransfer }) => {
    const own = target.src?.match(OWN_PICTURE);
    if (!own) return;
    const whole = target.src.replace(/\/small$/, ".png");
    dataTransfer.setData("text/uri-list", whole);
    dataTransfer.setData("DownloadURL", `image/png:picture-${own[1]}.png:${whole}`);
  });
  window.addEventListener("drop", (event) => {
    if (!free(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file && open() && ownPicture(event.dataTransfer) === null) read(file); // a picture of the stage that falls back onto it means nothing
  });
}
