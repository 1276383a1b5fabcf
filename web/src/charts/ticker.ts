/**
 * The one clock of everything that is drawn live. Every second it lets those speak that are on the screen and due, a few at a time, so that
 * twenty charts are twenty short pieces of work and no long one.
 */
type Live = { due: (now: number) => boolean; refresh: () => Promise<void> }

const all = new Set<Live>()
/** Requests at once: fewer than a browser's connections to one host, so that what is clicked is never queued behind. */
const AT_ONCE = 4

let timer: ReturnType<typeof setTimeout> | undefined

async function tick(): Promise<void> {
  const queue = document.hidden ? [] : [...all].filter((one) => one.due(Date.now()))
  const work = async () => {
    for (let one = queue.shift(); one; one = queue.shift()) await one.refresh()
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
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
