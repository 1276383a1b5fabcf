/**
 * A chart as it stands on the page: title, drawing, legend, and what can be done with it. Only what is on the screen asks for rows
 * and has a canvas.
 */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { isAbort, Refused } from '../api/client'
import { load } from '../api/rows'
import { coarsestTier, type Frame, toCsv } from '../model/frame'
import { keyOf, type Source } from '../model/source'
import { clock, duration, moment } from '../model/time'
import { brief, number, quantity } from '../model/units'
import { ends, pan, span, standing, zoom } from '../model/window'
import { agentNow } from '../state/fleet'
import { hashOf, route } from '../state/place'
import { theme } from '../state/theme'
import { currentWindow, moving, setWindow, timeWindow } from '../state/window'
import { Menu } from '../ui/menu'
import { colour, token } from './palette'
import { type ChartType, Plot } from './plot'
import { type Draw, follow } from './ticker'

export type ChartSpec = {
  anchor: string
  title: string
  /** What identifies it: the id of a chart, or a context. */
  name: string
  units: string
  type: ChartType
  /** Seconds between samples. */
  every: number
  /** The first second that is kept; of what is before it nobody need be asked. */
  first: number
  source: Source
  /** Further entries of its menu. */
  more?: { label: string; href: string }[]
}

const HEIGHT = 168
/** Series of which the legend says the value; the others are named by a count. */
const LEGEND_MAX = 40

type Standing = 'loading' | 'ready' | 'empty' | { error: string }

export function ChartCard({ spec }: { spec: ChartSpec }) {
  const box = useRef<HTMLElement>(null)
  const [near, setNear] = useState(false)
  useEffect(() => {
    const watch = new IntersectionObserver(([entry]) => setNear(entry?.isIntersecting ?? false), { rootMargin: '120px 0px' })
    if (box.current) watch.observe(box.current)
    return () => watch.disconnect()
  }, [])
  return (
    <figure class="card" ref={box} id={spec.anchor} data-chart={spec.name} aria-label={spec.title}>
      {near ? <Drawn key={`${keyOf(spec.source)} ${spec.type} ${spec.units}`} spec={spec} /> : <figcaption class="card-head"><span class="card-title">{spec.title}</span></figcaption>}
    </figure>
  )
}

/** What was drawn last of each chart: scrolling back shows it at once. */
const kept = new Map<string, Frame>()
const KEPT_MAX = 200

function keep(key: string, frame: Frame): void {
  kept.delete(key)
  kept.set(key, frame)
  if (kept.size > KEPT_MAX) kept.delete(kept.keys().next().value!)
}

function Drawn({ spec }: { spec: ChartSpec }) {
  const key = keyOf(spec.source)
  const holder = useRef<HTMLDivElement>(null)
  const legend = useRef<HTMLUListElement>(null)
  const [standingNow, setStanding] = useState<Standing>('loading')
  const [names, setNames] = useState<{ id: string; name: string }[]>([])
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set())
  const [tier, setTier] = useState({ tier: 0, step: spec.every })
  const [unit, setUnit] = useState(spec.units)
  const [asTable, setAsTable] = useState(false)
  const frame = useRef<Frame | undefined>(undefined)
  const plot = useRef<Plot | undefined>(undefined)
  const hover = useRef<number | null>(null)
  const hiddenRef = useRef(hidden)
  hiddenRef.current = hidden
  const chosen = timeWindow.value
  const asked = JSON.stringify(chosen)

  /** The numbers of the legend: of the row pointed at, or of the newest that has any. */
  const tell = () => {
    const list = legend.current
    const now = frame.current
    if (!list || !now) return
    let row = hover.current
    if (row === null || row >= now.times.length) {
      row = now.times.length - 1
      while (row > 0 && now.series.every((one) => one.values[row!] === null)) row -= 1
    }
    const factor = plot.current?.scale.factor ?? 1
    const values = list.querySelectorAll<HTMLElement>('[data-at]')
    for (const cell of values) {
      const value = now.series[Number(cell.dataset.at)]?.values[row]
      const text = brief(value === null || value === undefined ? value : value * factor)
      if (cell.textContent !== text) cell.textContent = text
    }
    const time = list.querySelector<HTMLElement>('[data-time]')
    const at = now.times[row]
    if (time) time.textContent = hover.current !== null && at ? (now.step >= 3600 ? moment(at) : clock(at)) : ''
  }

  const draw = () => {
    const now = frame.current
    if (!now || !plot.current || now.times.length === 0) return
    // What is live ends with its newest row: the second that is not there yet is no gap.
    const window = currentWindow()
    const { after, before } = ends(window, agentNow())
    const newest = now.times.at(-1) ?? before
    const late = window.live && before - newest < Math.max(3, 2 * now.step) ? before - newest : 0
    plot.current.show(now, hiddenRef.current, after - late, before - late)
    setUnit(plot.current.scale.unit)
    tell()
  }

  // The drawing itself.
  useEffect(() => {
    const element = holder.current
    if (!element) return
    const drawn = new Plot(
      element,
      { type: spec.type, units: spec.units, theme: theme.peek(), width: element.clientWidth, height: HEIGHT },
      {
        select: (after, before) => setWindow(standing(after, before, agentNow() + 1)),
        zoom: (factor, at) => setWindow(zoom(currentWindow(), factor, at, agentNow())),
        pan: (seconds) => setWindow(pan(currentWindow(), seconds, agentNow())),
        live: () => setWindow({ live: true, span: span(currentWindow()) }),
        hover: (row) => {
          if (row === hover.current) return
          hover.current = row
          tell()
        },
      },
    )
    plot.current = drawn
    frame.current = kept.get(key)
    if (frame.current) {
      setNames(frame.current.series.map(({ id, name }) => ({ id, name })))
      draw()
    }
    let width = element.clientWidth
    const size = new ResizeObserver(() => {
      if (element.clientWidth === width || element.clientWidth === 0) return
      width = element.clientWidth
      drawn.resize(width, HEIGHT)
    })
    size.observe(element)
    const unmoved = moving.subscribe((window) => {
      if (!window) return
      const { after, before } = ends(window, agentNow())
      drawn.slide(after, before)
    })
    const unthemed = theme.subscribe((value) => drawn.retheme(value))
    return () => {
      size.disconnect()
      unmoved()
      unthemed()
      drawn.destroy()
      plot.current = undefined
    }
  }, [])

  // Its rows: at once for another span, then as often as there are new ones.
  useEffect(() => {
    const abort = new AbortController()
    let next = 0
    let busy = false
    const refresh = async (): Promise<Draw | undefined> => {
      if (!chosen.live && chosen.before < spec.first) {
        setStanding('empty')
        return undefined
      }
      busy = true
      try {
        const got = await load(spec.source, chosen, holder.current?.clientWidth ?? 400, abort.signal)
        if (abort.signal.aborted) return undefined
        next = Date.now() + Math.max(1, got.step) * 1000 - 400
        const before = frame.current
        frame.current = got
        keep(key, got)
        if (before?.series.map((one) => one.id).join() !== got.series.map((one) => one.id).join() || names.length === 0) {
          setNames(got.series.map(({ id, name }) => ({ id, name })))
        }
        const tier = coarsestTier(got)
        setTier((old) => (old.tier === tier && old.step === got.step ? old : { tier, step: got.step }))
        setStanding(got.times.length === 0 ? 'empty' : 'ready')
        return draw
      } catch (error) {
        if (isAbort(error) || abort.signal.aborted) return undefined
        next = Date.now() + 3000
        if (error instanceof Refused && error.status === 404) setStanding('empty')
        else setStanding({ error: error instanceof Error ? error.message : String(error) })
      } finally {
        busy = false
      }
      return undefined
    }
    void refresh().then((draw) => draw?.())
    const leave = chosen.live ? follow({ due: (now) => !busy && now >= next && !moving.peek(), refresh }) : () => false
    return () => {
      abort.abort()
      leave()
    }
  }, [key, asked])

  useEffect(draw, [hidden, names])
  useEffect(tell, [names, asTable])

  const toggle = (id: string, alone: boolean) => {
    const others = names.map((one) => one.id).filter((one) => one !== id)
    const only = others.every((one) => hidden.has(one)) && !hidden.has(id)
    if (alone) setHidden(new Set(only ? [] : others))
    else {
      const next = new Set(hidden)
      if (!next.delete(id)) next.add(id)
      setHidden(next)
    }
  }

  const keys = (event: KeyboardEvent) => {
    const now = agentNow()
    const window = currentWindow()
    const { after, before } = ends(window, now)
    const rows = frame.current?.times.length ?? 0
    const row = hover.current ?? rows - 1
    const acts: Record<string, () => void> = {
      ArrowLeft: () => (event.shiftKey ? plot.current?.point(Math.max(0, row - 1)) : setWindow(pan(window, -(before - after) / 4, now))),
      ArrowRight: () => (event.shiftKey ? plot.current?.point(Math.min(rows - 1, row + 1)) : setWindow(pan(window, (before - after) / 4, now))),
      '+': () => setWindow(zoom(window, 0.5, window.live ? before : (after + before) / 2, now)),
      '-': () => setWindow(zoom(window, 2, window.live ? before : (after + before) / 2, now)),
      '0': () => setWindow({ live: true, span: span(window) }),
    }
    const act = acts[event.key === '=' ? '+' : event.key]
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    act()
  }

  const table = useMemo(() => (asTable ? frame.current : undefined), [asTable, standingNow, asked])
  const bad = typeof standingNow === 'object' ? standingNow.error : undefined
  return (
    <>
      <figcaption class="card-head">
        <span class="card-title" title={`${spec.title} (${spec.name})`}>{spec.title}</span>
        <span class="card-name">{spec.name === spec.title ? '' : spec.name}</span>
        {tier.tier > 0 && (
          <span class="badge" data-tier={tier.tier} title={`Read from tier ${tier.tier} of the store; a point is ${duration(tier.step)}`}>
            tier {tier.tier} · {duration(tier.step)}
          </span>
        )}
        <span class="card-unit">{unit}</span>
        <Menu label={`More of ${spec.title}`}>
          <button type="button" onClick={() => setAsTable(!asTable)}>{asTable ? 'Show as chart' : 'Show as table'}</button>
          <button type="button" onClick={() => frame.current && save(`${spec.name}.csv`, new Blob([toCsv(frame.current)], { type: 'text/csv' }))}>Save as CSV</button>
          <button type="button" onClick={() => void picture(spec, plot.current, frame.current)}>Save as PNG</button>
          <button type="button" onClick={() => void share(spec)}>Copy link to this</button>
          {spec.more?.map((one) => <a key={one.label} href={one.href}>{one.label}</a>)}
        </Menu>
      </figcaption>
      <div
        class="plot"
        ref={holder}
        hidden={asTable}
        style={{ height: `${HEIGHT}px` }}
        tabIndex={0}
        role="img"
        aria-label={`${spec.title}, in ${unit}. Arrows move in time, with Shift the cursor; plus and minus zoom, 0 follows the present.`}
        data-state={typeof standingNow === 'string' ? standingNow : 'error'}
        onKeyDown={keys}
      >
        {standingNow === 'loading' && !frame.current && <p class="plot-note">loading …</p>}
        {standingNow === 'empty' && <p class="plot-note">nothing is stored of this span</p>}
        {bad && <p class="plot-note error">{bad}</p>}
      </div>
      {table && <Rows frame={table} units={spec.units} />}
      <ul class="legend" ref={legend}>
        <li class="legend-time" data-time aria-hidden="true" />
        {names.slice(0, LEGEND_MAX).map((one, at) => (
          <li key={one.id}>
            <button
              type="button"
              aria-pressed={!hidden.has(one.id)}
              title={`${one.name}: click to hide or show, Shift-click to show it alone`}
              onClick={(event) => toggle(one.id, event.shiftKey)}
            >
              <i style={{ background: colour(at, theme.value) }} />
              <span class="legend-name">{one.name}</span>
              <b data-at={at} />
            </button>
          </li>
        ))}
        {names.length > LEGEND_MAX && <li class="muted">and {names.length - LEGEND_MAX} more</li>}
      </ul>
    </>
  )
}

/** The newest rows as text. */
function Rows({ frame, units }: { frame: Frame; units: string }) {
  const rows = frame.times.map((_, at) => at).reverse().slice(0, 60)
  return (
    <div class="scroll-x card-table" tabIndex={0}>
      <table class="table">
        <caption class="sr">The newest {rows.length} rows, in {units}</caption>
        <thead><tr><th scope="col">time</th>{frame.series.map((one) => <th key={one.id} scope="col" class="num">{one.name}</th>)}</tr></thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row}>
              <th scope="row">{moment(frame.times[row]!)}</th>
              {frame.series.map((one) => <td key={one.id} class="num">{number(one.values[row])}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function save(name: string, blob: Blob): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

/** The drawing with its title and legend, as a picture that can stand alone. */
async function picture(spec: ChartSpec, plot: Plot | undefined, frame: Frame | undefined): Promise<void> {
  const drawn = plot?.canvas()
  if (!drawn || !frame) return
  const ratio = devicePixelRatio
  const head = 30 * ratio
  const foot = (16 * Math.ceil(frame.series.length / 4) + 10) * ratio
  const canvas = document.createElement('canvas')
  canvas.width = drawn.width
  canvas.height = drawn.height + head + foot
  const ctx = canvas.getContext('2d')!
  ctx.fillStyle = token('surface')
  ctx.fillRect(0, 0, canvas.width, canvas.height)
  ctx.drawImage(drawn, 0, head)
  ctx.fillStyle = token('text')
  ctx.font = `600 ${13 * ratio}px ${token('font')}`
  ctx.fillText(`${spec.title} (${plot?.scale.unit ?? spec.units})`, 8 * ratio, 19 * ratio)
  ctx.font = `${11 * ratio}px ${token('font')}`
  frame.series.forEach((one, at) => {
    const x = 8 * ratio + ((at % 4) * canvas.width) / 4
    const y = drawn.height + head + (16 * Math.floor(at / 4) + 12) * ratio
    ctx.fillStyle = colour(at, theme.peek())
    ctx.fillRect(x, y - 8 * ratio, 8 * ratio, 8 * ratio)
    ctx.fillStyle = token('text')
    const value = one.values.findLast((v) => v !== null)
    ctx.fillText(`${one.name}  ${value === undefined || value === null ? '' : quantity(value, spec.units)}`, x + 12 * ratio, y)
  })
  canvas.toBlob((blob) => blob && save(`${spec.name}.png`, blob))
}

/** A link to this chart and span; what was live stands still in it, since it is to show what is seen now. */
async function share(spec: ChartSpec): Promise<void> {
  const { after, before } = ends(currentWindow(), agentNow())
  const { view, node, params } = route.peek()
  const next = new URLSearchParams(params)
  next.set('after', String(Math.round(after)))
  next.set('before', String(Math.round(before)))
  next.set('chart', spec.anchor)
  const link = location.href.replace(/#.*$/, '') + hashOf(view, node, next)
  try {
    await navigator.clipboard.writeText(link)
  } catch {
    // Plain http has no clipboard: then the address bar shows it.
    location.hash = hashOf(view, node, next)
  }
}
