/** What is there of a host's past, span by span, and what is missing. */
import type { DataV2 } from '../api/types'

/** `before`: nothing was kept yet. `partial`: some metrics lack some samples. */
export type Cell = 'before' | 'present' | 'partial' | 'missing' | 'flight'

export type Strip = { name: string; cells: Cell[] }

export type GapMap = { times: number[]; step: number; strips: Strip[]; gaps: { after: number; before: number; names: string[] }[]; share: number }

const PARTIAL = 4

/**
 * Reads rows grouped by context. `first` is when the host's past begins, `inFlight` whether a connection brings what is missing just now.
 */
export function gapMap(answer: DataV2, first: number, inFlight: boolean): GapMap {
  const rows = answer.result.data.toSorted((a, b) => a[0] - b[0])
  const step = answer.view.update_every
  const last = answer.db.last_entry
  const ids = answer.result.labels.slice(1)
  const times = rows.map((row) => row[0])
  let there = 0
  let all = 0
  const strips = ids.map((id, at): Strip => {
    const cells = rows.map((row): Cell => {
      const point = row[at + 1] as [number | null, number, number] | undefined
      const time = row[0]
      if (time < first) return 'before'
      // The newest row may still be on its way.
      if (time > last && (point?.[0] ?? null) === null) return 'before'
      all += 1
      if (!point || point[0] === null) return inFlight ? 'flight' : 'missing'
      there += 1
      return (point[2] & PARTIAL) !== 0 ? 'partial' : 'present'
    })
    return { name: answer.view.dimensions.names[answer.view.dimensions.ids.indexOf(id)] ?? id, cells }
  })
  const gaps: GapMap['gaps'] = []
  times.forEach((time, at) => {
    const names = strips.filter((one) => one.cells[at] === 'missing' || one.cells[at] === 'flight').map((one) => one.name)
    if (names.length === 0) return
    const open = gaps.at(-1)
    if (open && open.before === time - step && open.names.join() === names.join()) open.before = time
    else gaps.push({ after: time - step, before: time, names })
  })
  return { times, step, strips, gaps, share: all === 0 ? 100 : (there * 100) / all }
}
