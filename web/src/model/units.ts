/**
 * Units as the agent names them, scaled so that a number can be read: 1536 KiB is 1.5 MiB. One scale is chosen for a whole chart,
 * after its largest value, so that its numbers can be compared.
 */

/** What to multiply values with, and the unit they then have. */
export type Scale = { factor: number; unit: string }

type Family = { words: Record<string, number>; steps: [number, string][] }

const KI = 1024
const binary = (base: string): Family['steps'] => [
  [1, base],
  [KI, `Ki${base}`],
  [KI ** 2, `Mi${base}`],
  [KI ** 3, `Gi${base}`],
  [KI ** 4, `Ti${base}`],
  [KI ** 5, `Pi${base}`],
]

const FAMILIES: Family[] = [
  {
    words: {
      bytes: 1, B: 1, byte: 1,
      kilobytes: KI, KB: KI, KiB: KI, kiB: KI,
      megabytes: KI ** 2, MB: KI ** 2, MiB: KI ** 2,
      gigabytes: KI ** 3, GB: KI ** 3, GiB: KI ** 3,
    },
    steps: binary('B'),
  },
  {
    words: { bits: 1, bit: 1, kilobits: 1e3, kbit: 1e3, megabits: 1e6, gigabits: 1e9 },
    steps: [[1, 'bit'], [1e3, 'kbit'], [1e6, 'Mbit'], [1e9, 'Gbit'], [1e12, 'Tbit']],
  },
  {
    words: { seconds: 1, s: 1, milliseconds: 1e-3, ms: 1e-3, microseconds: 1e-6, us: 1e-6, 'µs': 1e-6, nanoseconds: 1e-9, minutes: 60, hours: 3600 },
    steps: [[1e-9, 'ns'], [1e-6, 'µs'], [1e-3, 'ms'], [1, 's'], [60, 'min'], [3600, 'h'], [86400, 'd']],
  },
  {
    words: { Hz: 1, KHz: 1e3, MHz: 1e6, GHz: 1e9 },
    steps: [[1, 'Hz'], [1e3, 'kHz'], [1e6, 'MHz'], [1e9, 'GHz']],
  },
]

const COUNTS: [number, string][] = [[1, ''], [1e3, 'k'], [1e6, 'M'], [1e9, 'G'], [1e12, 'T']]

function step(steps: [number, string][], value: number): [number, string] {
  let best = steps[0]!
  for (const candidate of steps) if (value >= candidate[0] * 0.9999) best = candidate
  return best
}

/** The scale at which values of `unit` up to `largest` in size are read best. */
export function scaleFor(unit: string, largest: number): Scale {
  const size = Math.abs(largest)
  if (unit === 'percentage' || unit === '%' || unit === 'percent') return { factor: 1, unit: '%' }
  const [, word = unit, per = ''] = /^(.*?)(\/s)?$/.exec(unit) ?? []
  const family = FAMILIES.find((one) => Object.hasOwn(one.words, word))
  if (family) {
    const base = family.words[word]!
    // A rate of time (milliseconds/s) is a share of it; it stays as it is. So does what is nothing.
    if (size === 0 || (per && family.words.seconds)) return { factor: 1, unit: shortWord(word) + per }
    const [by, name] = step(family.steps, size * base)
    return { factor: base / by, unit: name + per }
  }
  if (size < 1e4) return { factor: 1, unit }
  const [by, prefix] = step(COUNTS, size)
  return { factor: 1 / by, unit: `${prefix} ${unit}`.trim() }
}

function shortWord(word: string): string {
  const short: Record<string, string> = {
    kilobits: 'kbit', megabits: 'Mbit', gigabits: 'Gbit', bits: 'bit',
    bytes: 'B', kilobytes: 'KiB', megabytes: 'MiB', gigabytes: 'GiB',
    seconds: 's', milliseconds: 'ms', microseconds: 'µs', nanoseconds: 'ns', minutes: 'min', hours: 'h',
  }
  return short[word] ?? word
}

/** A number with about four digits, never in exponents. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  if (size === 0) return '0'
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.01 ? 3 : size >= 0.0001 ? 5 : 7
  const text = value.toFixed(digits)
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text
}

/** The same where numbers stand one below the other: two decimals at most. */
export function brief(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  return value.toFixed(size === 0 || size >= 1000 ? 0 : size >= 100 ? 1 : size >= 0.1 ? 2 : 3)
}

/** One value of a unit, scaled by itself. */
export function quantity(value: number, unit: string): string {
  const scale = scaleFor(unit, value)
  const text = number(value * scale.factor)
  return scale.unit === '%' ? `${text}%` : `${text} ${scale.unit}`
}
