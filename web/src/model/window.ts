/**
 * The span of time that charts show. It either follows the present, or stands. Everything is in seconds; all functions are pure,
 * `now` is given.
 */

export type Window = { live: true; span: number } | { live: false; after: number; before: number }

export const SPAN_MIN = 10
export const SPAN_MAX = 5 * 365 * 86_400
export const SPAN_DEFAULT = 600

export const PRESETS: [number, string][] = [
  [60, '1 min'], [300, '5 min'], [600, '10 min'], [1_800, '30 min'], [3_600, '1 h'], [21_600, '6 h'],
  [86_400, '1 day'], [604_800, '7 days'], [2_592_000, '30 days'], [31_536_000, '1 year'],
]

export function ends(window: Window, now: number): { after: number; before: number } {
  return window.live ? { after: now - window.span, before: now } : { after: window.after, before: window.before }
}

export function span(window: Window): number {
  return window.live ? window.span : window.before - window.after
}

/** A window that stands, within what can be asked for. One whose end is the present follows it. */
export function standing(after: number, before: number, now: number): Window {
  const length = Math.min(Math.max(before - after, SPAN_MIN), SPAN_MAX)
  if (before >= now) return { live: true, span: Math.round(length) }
  const end = Math.round(before)
  return { live: false, after: end - Math.round(length), before: end }
}

/** Shorter (`factor` < 1) or longer, so that the moment `at` keeps its place. */
export function zoom(window: Window, factor: number, at: number, now: number): Window {
  const { after, before } = ends(window, now)
  const length = Math.min(Math.max((before - after) * factor, SPAN_MIN), SPAN_MAX)
  const place = Math.min(Math.max((at - after) / (before - after), 0), 1)
  const start = at - place * length
  // Near the present's edge of a live window it is the edge that stays.
  if (window.live && place > 0.9) return { live: true, span: Math.round(length) }
  return standing(start, start + length, now)
}

/** Moved by `seconds`, never beyond the present. */
export function pan(window: Window, seconds: number, now: number): Window {
  const { after, before } = ends(window, now)
  const moved = before + seconds
  if (moved >= now) return { live: true, span: Math.round(before - after) }
  return standing(after + seconds, moved, now)
}

/** As the hash spells it. */
export function toParams(window: Window): { after: string; before: string | null } {
  return window.live
    ? { after: `-${window.span}`, before: null }
    : { after: String(window.after), before: String(window.before) }
}

export function fromParams(params: URLSearchParams): Window {
  const after = Number(params.get('after') ?? Number.NaN)
  const before = Number(params.get('before') ?? Number.NaN)
  const sane = (n: number) => Number.isFinite(n) && n > 0
  if (sane(after) && sane(before) && before - after >= SPAN_MIN) {
    return { live: false, after: Math.round(after), before: Math.round(before) }
  }
  const length = Number.isFinite(after) && after < 0 ? -after : SPAN_DEFAULT
  return { live: true, span: Math.round(Math.min(Math.max(length, SPAN_MIN), SPAN_MAX)) }
}

/**
 * How many points to ask for on `pixels`: about one for two of them, and where a window is short, one for each second, so that
 * a live chart moves every second.
 */
export function pointsFor(pixels: number, window: Window): number {
  return Math.max(30, Math.min(Math.round(pixels / 2), span(window), 800))
}
