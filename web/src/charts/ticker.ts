/**
 * The one clock of everything that is drawn live. Every second it lets those ask that are on the screen and due, and when the answers are there, all are
 * drawn in one frame: a browser paints tiles that several charts share, and would do that again for each of them.
 */

/** Draws what an answer brought. */
export type Draw = () => void

type Live = { due: (now: number) => boolean; refresh: () => Promise<Draw | undefined> }

const all = new Set<Live>()
/** Requests at once: fewer than a browser's connections to one host, so that what is clicked is never queued behind. */
const AT_ONCE = 4
/** Who answers later than this is drawn by itself. */
const PATIENCE_MS = 400

let timer: ReturnType<typeof setTimeout> | undefined

async function tick(): Promise<void> {
  const queue = document.hidden ? [] : [...all].filter((one) => one.due(Date.now()))
  let ready: Draw[] = []
  const work = async () => {
    for (let one = queue.shift(); one; one = queue.shift()) {
      const draw = await one.refresh()
      if (draw) ready.push(draw)
    }
  }
  const flush = () => {
    const now = ready
    ready = []
    if (now.length > 0) requestAnimationFrame(() => now.forEach((draw) => draw()))
  }
  const done = Promise.all(Array.from({ length: AT_ONCE }, work))
  await Promise.race([done, new Promise((later) => setTimeout(later, PATIENCE_MS))])
  flush()
  await done
  flush()
  schedule()
}

function schedule(): void {
  // A little after the full second: then the samples of the one before are there.
  const past = Date.now() % 1000
  timer = setTimeout(() => void tick(), past < 250 ? 250 - past : 1250 - past)
}

/** Joins; the answer leaves again. */
export function follow(one: Live): () => void {
  all.add(one)
  if (timer === undefined) schedule()
  return () => all.delete(one)
}
