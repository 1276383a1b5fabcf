/** Rows over time, whichever question they answer: columns of values with `null` where there is none. */
import type { DataV1, DataV2 } from '../api/types'

export type Series = { id: string; name: string; values: (number | null)[] }

export type Frame = {
  /** The last second of each row. */
  times: number[]
  series: Series[]
  /** Seconds from one row to the next. */
  step: number
  /** Points read of each tier of the store. */
  tiers: number[]
  first: number
  last: number
}

export function fromV1(answer: DataV1): Frame {
  const rows = Array.isArray(answer.result) ? [] : answer.result.data
  const times = rows.map((row) => row[0] ?? 0)
  const series = answer.dimension_ids.map((id, at) => ({
    id,
    name: answer.dimension_names[at] ?? id,
    values: rows.map((row) => row[at + 1] ?? null),
  }))
  return {
    times,
    series: rows.length === 0 ? [] : series,
    step: answer.view_update_every,
    tiers: answer.db_points_per_tier,
    first: answer.first_entry,
    last: answer.last_entry,
  }
}

export function fromV2(answer: DataV2): Frame {
  const rows = answer.result.data.toSorted((a, b) => a[0] - b[0])
  const names = new Map(answer.view.dimensions.ids.map((id, at) => [id, answer.view.dimensions.names[at] ?? id]))
  const tiers: number[] = []
  for (const { tier, points } of answer.db.per_tier) tiers[tier] = points
  return {
    times: rows.map((row) => row[0]),
    series: answer.result.labels.slice(1).map((id, at) => ({
      id,
      name: names.get(id) ?? id,
      values: rows.map((row) => (row[at + 1] as [number | null] | undefined)?.[0] ?? null),
    })),
    step: answer.view.update_every,
    tiers,
    first: answer.db.first_entry,
    last: answer.db.last_entry,
  }
}

/** The coarsest tier of which points were read, or 0. */
export function coarsestTier(frame: Frame): number {
  return Math.max(0, frame.tiers.findLastIndex((points) => points > 0))
}

/**
 * Values put on top of one another, from the last series up, so that the first is on top as in the legend. A row in which none has a value stays a
 * gap; among others a missing value adds nothing.
 */
export function stack(series: Series[], shown: (id: string) => boolean): (number | null)[][] {
  const rows = series[0]?.values.length ?? 0
  const sums: (number | null)[] = new Array(rows).fill(null)
  const out: (number | null)[][] = new Array(series.length)
  for (let at = series.length - 1; at >= 0; at -= 1) {
    const one = series[at]!
    if (!shown(one.id)) {
      out[at] = new Array(rows).fill(null)
      continue
    }
    for (let row = 0; row < rows; row += 1) {
      const value = one.values[row]
      if (value !== null && value !== undefined) sums[row] = (sums[row] ?? 0) + value
    }
    out[at] = sums.slice()
  }
  return out
}

/** The largest size of what is drawn. */
export function largest(columns: (number | null)[][]): number {
  let most = 0
  for (const column of columns) {
    for (const value of column) if (value !== null && Math.abs(value) > most) most = Math.abs(value)
  }
  return most
}

/** As a spreadsheet reads it. */
export function toCsv(frame: Frame): string {
  const quote = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const head = ['time', ...frame.series.map((one) => quote(one.name))].join(',')
  const rows = frame.times.map((time, at) =>
    [new Date(time * 1000).toISOString(), ...frame.series.map((one) => one.values[at] ?? '')].join(','),
  )
  return `${[head, ...rows].join('\n')}\n`
}
