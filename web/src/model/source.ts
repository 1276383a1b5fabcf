/** Where the rows of a chart come from: one chart of one node, or a context over many nodes, grouped. */

/** What the values of many nodes are grouped by. `chart`: not at all. */
export type Grouping = { by: 'chart' | 'dimension' | 'node' | 'instance' | 'label'; label?: string; how: 'auto' | 'avg' | 'sum' | 'min' | 'max' }

export type Source =
  | { kind: 'chart'; node: string; chart: string }
  | { kind: 'context'; nodes: string; context: string; grouping: Grouping }

/** Names one source, for keys. */
export function keyOf(source: Source): string {
  if (source.kind === 'chart') return `${source.node}/${source.chart}`
  const { by, label, how } = source.grouping
  return `${source.nodes}|${source.context}|${by}:${label ?? ''}:${how}`
}

/** `node:sum`, `label/device:avg`, as the hash spells it. */
export function parseGrouping(text: string | null): Grouping {
  const [what = '', how = ''] = (text ?? '').split(':')
  const [by = '', label] = what.split('/')
  const known = (['chart', 'dimension', 'node', 'instance', 'label'] as const).find((one) => one === by)
  const ways = (['auto', 'avg', 'sum', 'min', 'max'] as const).find((one) => one === how)
  if (known === 'label' && !label) return { by: 'chart', how: 'auto' }
  return { by: known ?? 'chart', label, how: ways ?? 'auto' }
}

export function spellGrouping({ by, label, how }: Grouping): string | null {
  return by === 'chart' ? null : `${by}${label ? `/${label}` : ''}:${how}`
}

/** What becomes one by itself: dimensions that stand on one another add up, others are averaged; a dimension of many nodes is averaged. */
export function resolved(grouping: Grouping, type: 'line' | 'area' | 'stacked'): Grouping {
  const by = grouping.by === 'chart' ? 'dimension' : grouping.by
  const how = grouping.how !== 'auto' ? grouping.how : by !== 'dimension' && type !== 'line' ? 'sum' : 'avg'
  return { ...grouping, by, how }
}
