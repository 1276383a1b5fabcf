/** Asks for the rows of a chart: one chart of a node by v1, which is the shorter answer, many nodes by v2. */
import { type Frame, fromV1, fromV2 } from '../model/frame'
import type { Source } from '../model/source'
import { pointsFor, type Window } from '../model/window'
import { getJson, ofHost, query } from './client'
import type { DataV1, DataV2 } from './types'

/** The rows of `window`, as many as `pixels` can show. */
export async function load(source: Source, window: Window, pixels: number, signal: AbortSignal): Promise<Frame> {
  const points = pointsFor(pixels, window)
  const span = window.live
    ? { after: -window.span, before: 0 }
    : { after: window.after, before: window.before }
  if (source.kind === 'chart') {
    const options = 'jsonwrap|flip'
    const text = query({ chart: source.chart, ...span, points, options, group: 'average', format: 'json' })
    return fromV1(await getJson<DataV1>(ofHost(source.node, `/api/v1/data?${text}`), signal))
  }
  const { by, label, how } = source.grouping
  const text = query({
    scope_nodes: source.nodes === '*' ? undefined : source.nodes,
    scope_contexts: source.context,
    ...span,
    points,
    group_by: by === 'chart' ? 'dimension' : by,
    group_by_label: by === 'label' ? label : undefined,
    aggregation: how === 'auto' ? 'avg' : how,
  })
  return fromV2(await getJson<DataV2>(`/api/v2/data?${text}`, signal))
}
