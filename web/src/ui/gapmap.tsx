/** The gap map of a host: a strip for each kind of metric, coloured by what is there. */
import { useEffect, useRef } from 'preact/hooks'
import { getJson, query } from '../api/client'
import type { DataV2 } from '../api/types'
import { token } from '../charts/palette'
import { type Cell, gapMap, type Strip } from '../model/gaps'
import type { Node } from '../model/nodes'
import { duration, moment } from '../model/time'
import { hashOf, route, setParams } from '../state/place'
import { usePoll } from '../state/poll'
import { theme } from '../state/theme'

/** What stands for all of a host: collected everywhere, by different sources. */
const CONTEXTS = ['system.cpu', 'system.ram', 'system.net', 'system.io', 'system.load', 'disk.io', 'net.net', 'mem.available']
const SPANS: [string, string, number][] = [['10m', '10 min', 600], ['1h', '1 hour', 3_600], ['1d', '1 day', 86_400], ['7d', '7 days', 604_800], ['all', 'all', 0]]
const POINTS = 240

const TONES: Record<Cell, string> = { before: 'sunken', present: 'live', partial: 'stale', missing: 'offline', flight: 'info' }
const WORDS: [Cell, string][] = [['present', 'present'], ['partial', 'in part'], ['missing', 'missing'], ['flight', 'on its way'], ['before', 'before the first sample']]

export function GapMapOf({ node, now }: { node: Node; now: number }) {
  const chosen = SPANS.find(([key]) => key === route.value.params.get('gaps')) ?? SPANS[1]!
  const length = chosen[2] || Math.max(600, now - node.first)
  const inFlight = node.replicating
  const { data, error } = usePoll(`gaps ${node.guid} ${chosen[0]}`, inFlight ? 1_000 : 5_000, async (signal) => {
    const text = query({ scope_nodes: node.guid, scope_contexts: CONTEXTS.join('|'), group_by: 'context', after: -length, points: POINTS })
    return getJson<DataV2>(`/api/v2/data?${text}`, signal)
  })
  const map = data && gapMap(data, node.first, inFlight)
  const present = new Set(map?.strips.flatMap((one) => one.cells))
  return (
    <section class="gaps" aria-label={`Gap map of ${node.name}`}>
      <header>
        <h3>Gap map</h3>
        <div class="chips" role="group" aria-label="Span">
          {SPANS.map(([key, name]) => <button type="button" key={key} aria-pressed={key === chosen[0]} onClick={() => setParams({ gaps: key })}>{name}</button>)}
        </div>
        <span class="grow" />
        {map && <span class="muted">{map.share === 100 ? 'nothing is missing' : `${map.share.toFixed(map.share > 99 ? 2 : 1)}% is there`}</span>}
      </header>
      {error && !data && <p class="muted">nothing is stored of this span</p>}
      {map?.strips.map((strip) => <StripOf key={strip.name} strip={strip} />)}
      {map && (
        <p class="gap-axis muted"><span>{moment((map.times[0] ?? 0) - map.step)}</span><span class="gap-key">{WORDS.filter(([cell]) => present.has(cell)).map(([cell, word]) => <span key={cell}><i class={`swatch ${cell}`} />{word}</span>)}</span><span>{duration(map.step)} each</span></p>
      )}
      {map && map.gaps.length > 0 && (
        <ul class="gap-list">
          {map.gaps.slice(-6).reverse().map((gap) => (
            <li key={`${gap.after} ${gap.names.join()}`}>
              <a href={hashOf('charts', node.name, { after: String(gap.after - Math.max(60, gap.before - gap.after)), before: String(gap.before + Math.max(60, gap.before - gap.after)) })}>
                {moment(gap.after)}, {duration(gap.before - gap.after)}
              </a>{' '}
              <span class="muted">{gap.names.length === map.strips.length ? 'all metrics' : gap.names.join(', ')}</span>
            </li>
          ))}
          {map.gaps.length > 6 && <li class="muted">and {map.gaps.length - 6} before these</li>}
        </ul>
      )}
    </section>
  )
}

function StripOf({ strip }: { strip: Strip }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const dark = theme.value
  const missing = strip.cells.filter((cell) => cell === 'missing' || cell === 'flight').length
  useEffect(() => {
    const element = canvas.current
    const ctx = element?.getContext('2d')
    if (!element || !ctx) return
    element.width = element.clientWidth * devicePixelRatio
    element.height = element.clientHeight * devicePixelRatio
    const width = element.width / Math.max(1, strip.cells.length)
    const colours = new Map(Object.entries(TONES).map(([cell, tone]) => [cell, token(tone)]))
    strip.cells.forEach((cell, at) => {
      ctx.fillStyle = colours.get(cell)!
      const left = Math.floor(at * width)
      ctx.fillRect(left, 0, Math.ceil((at + 1) * width) - left, element.height)
    })
  }, [strip, dark])
  return (
    <div class="strip">
      <span>{strip.name}</span>
      <canvas ref={canvas} role="img" aria-label={missing === 0 ? `${strip.name}: nothing is missing` : `${strip.name}: ${missing} of ${strip.cells.length} spans are missing`} />
    </div>
  )
}
