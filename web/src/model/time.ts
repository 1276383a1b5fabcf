/** Durations and moments as people read them. */

const PARTS: [number, string][] = [[31_536_000, 'y'], [86_400, 'd'], [3_600, 'h'], [60, 'm'], [1, 's']]

/** Seconds in the two largest units that they have: `3d 4h`. */
export function duration(seconds: number): string {
  let left = Math.max(0, Math.round(seconds))
  if (left === 0) return '0s'
  const words: string[] = []
  let parts = 0
  for (const [size, unit] of PARTS) {
    const count = Math.floor(left / size)
    left -= count * size
    if (count > 0) words.push(`${count}${unit}`)
    if (words.length > 0) parts += 1
    if (parts === 2) break
  }
  return words.join(' ')
}

export function ago(then: number, now: number): string {
  const seconds = now - then
  return seconds < 2 ? 'now' : `${duration(seconds)} ago`
}

const two = (n: number) => String(n).padStart(2, '0')

export function clock(seconds: number): string {
  const at = new Date(seconds * 1000)
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
}

export function day(seconds: number): string {
  const at = new Date(seconds * 1000)
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
}

/** The moment, with its day. */
export function moment(seconds: number): string {
  return `${day(seconds)} ${clock(seconds)}`
}

/** What `<input type=datetime-local>` takes. */
export function forInput(seconds: number): string {
  return moment(seconds).replace(' ', 'T')
}
