// What the stage says about a job, in words. Pure functions of the job.

import { duration, plural, sigmaText } from "./dom.js";
import { sizeOf } from "./hires.js";
import { pictureCount, picturesAtOnce, secondsLeft } from "./store.js";

const ENDINGS = { done: "done", interrupted: "interrupted", failed: "failed", cancelled: "cancelled", queued: "waiting" };

const joined = (...parts) => parts.filter(Boolean).join(" · ");

/** What stands on the stage when there is no picture: [title, sentence]. */
export function emptyText(job) {
  switch (job?.status) {
    case undefined:
      return ["Nothing painted yet", "Write what you want to see, then press Generate. Every step appears here as it is painted."];
    case "failed":
      return ["This one did not work out", "The reason is below; Retry in the queue tries it again."];
    case "queued":
      return ["Waiting for its turn", "It starts when the jobs before it are done."];
    default:
      return ["Stopped before the first picture", "The steps it got to are kept below."];
  }
}

/** Where a running job is: "step 14 / 20 · σ 0.62 · image 3 of 4". */
export function liveText(job) {
  if (job.message) return job.message;
  if (!job.last) return "starting…";
  const { batch, batches, step, total, sigma } = job.last;
  const size = picturesAtOnce(job.request);
  const count = batches * size;
  const first = batch * size + 1;
  const one = count === 1 ? "" : `image ${first} of ${count}`;
  return joined(`step ${step} / ${total}`, `σ ${sigmaText(sigma)}`, size === 1 ? one : `images ${first}–${first + size - 1} of ${count}`);
}

/** How fast it goes: "7.9 it/s · 0.8 s left". */
export function liveSpeed(job) {
  const left = duration(secondsLeft(job));
  const rate = job.rate >= 1 ? `${job.rate.toFixed(1)} it/s` : `${(1 / job.rate).toFixed(1)} s/it`;
  return joined(job.rate ? rate : "", left && `${left} left`);
}

/** How it ended, and which of its pictures is shown. */
export function endText(job, index) {
  const { request } = job;
  const count = pictureCount(job);
  const image = job.images.get(index);
  return joined(
    ENDINGS[job.status],
    count > 1 ? `image ${index + 1} of ${count}` : "",
    image ? `seed ${image.seed}` : "",
    sizeOf(request, image).join("×"),
  );
}

/** "4 pictures in 2.6 s". */
export function endSpeed(job) {
  if (!job.started || !job.finished) return "";
  return `${plural(job.images.size, "picture")} in ${duration(job.finished - job.started)}`;
}
