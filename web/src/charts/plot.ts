/**
 * One chart's drawing and what a hand does to it: uPlot below, our stacking, gaps and gestures above. Knows frames and windows,
 * nothing of where they come from.
 *
 * Drag selects a span to zoom into; with Shift (or one finger) it moves; the wheel zooms while Shift, Ctrl or Alt is held, as without it
 * belongs to the page; two fingers zoom; a double click goes back to the present.
 */
import uPlot from 'uplot'
import { type Frame, largest, stack } from '../model/frame'
import { clock, day } from '../model/time'
import { number, type Scale, scaleFor } from '../model/units'
import type { Theme } from '../state/theme'
import { colour, token } from './palette'

export type ChartType = 'line' | 'area' | 'stacked'

export type Gestures = {
  /** Show just this. */
  select(after: number, before: number): void
  /** Zoom by a factor around a moment. */
  zoom(factor: number, at: number): void
  /** Move by seconds. */
  pan(seconds: number): void
  live(): void
  /** The row under the pointer of any chart, or null. */
  hover(row: number | null): void
}

export type Look = { type: ChartType; units: string; theme: Theme; width: number; height: number }

/** Charts whose cursors move together. */
const TOGETHER = 'dashboard'

export class Plot {
  private plot: uPlot | undefined
  private frame: Frame | undefined
  private shape = ''
  private hidden: ReadonlySet<string> = new Set()
  private from = 0
  private to = 1
  scale: Scale = { factor: 1, unit: '' }

  constructor(
    private readonly parent: HTMLElement,
    private look: Look,
    private readonly gestures: Gestures,
  ) {}

  /** Shows `frame` between two moments. */
  show(frame: Frame, hidden: ReadonlySet<string>, after: number, before: number): void {
    this.frame = frame
    this.hidden = hidden
    this.from = after
    this.to = before
    const shape = frame.series.map((one) => one.id).join('\n') + this.look.type + this.look.theme
    const data = this.data(frame)
    if (!this.plot || shape !== this.shape) {
      this.shape = shape
      this.plot?.destroy()
      this.plot = new uPlot(this.options(frame), data, this.parent)
      this.stackBands()
      return
    }
    this.plot.batch(() => {
      this.stackBands()
      this.plot?.setData(data, false)
      this.plot?.setScale('x', { min: after, max: before })
    })
  }

  /** Moves to another span before its rows are there. */
  slide(after: number, before: number): void {
    this.from = after
    this.to = before
    this.plot?.setScale('x', { min: after, max: before })
  }

  resize(width: number, height: number): void {
    this.look = { ...this.look, width, height }
    this.plot?.setSize({ width, height })
  }

  retheme(theme: Theme): void {
    this.look = { ...this.look, theme }
    if (this.frame) this.show(this.frame, this.hidden, this.from, this.to)
  }

  /** Puts the cursor on a row, for those who have no pointer. */
  point(row: number): void {
    const u = this.plot
    const time = this.frame?.times[row]
    if (u && time !== undefined) u.setCursor({ left: u.valToPos(time, 'x'), top: u.bbox.height / 2 / devicePixelRatio })
  }

  canvas(): HTMLCanvasElement | undefined {
    return this.plot?.ctx.canvas
  }

  destroy(): void {
    this.plot?.destroy()
    this.plot = undefined
  }

  private isShown = (id: string) => !this.hidden.has(id)

  private data(frame: Frame): uPlot.AlignedData {
    const raw =
      this.look.type === 'stacked'
        ? stack(frame.series, this.isShown)
        : frame.series.map((one) => (this.isShown(one.id) ? one.values : new Array(frame.times.length).fill(null)))
    this.scale = scaleFor(this.look.units, largest(raw))
    const { factor } = this.scale
    const columns = factor === 1 ? raw : raw.map((column) => column.map((value) => (value === null ? null : value * factor)))
    return [frame.times, ...columns] as uPlot.AlignedData
  }

  /** Between two neighbours of a stack, what the upper one adds. */
  private stackBands(): void {
    const { plot, frame } = this
    if (!plot || !frame || this.look.type !== 'stacked') return
    const shown = frame.series.flatMap((one, at) => (this.isShown(one.id) ? [at] : []))
    plot.delBand(null)
    shown.slice(0, -1).forEach((at, n) => {
      plot.addBand({ series: [at + 1, shown[n + 1]! + 1], fill: `${colour(at, this.look.theme)}cc` })
    })
  }

  private options(frame: Frame): uPlot.Options {
    const { type, theme, width, height } = this.look
    const grid = { stroke: token('grid'), width: 1 }
    const font = `11px ${token('font')}`
    const axis = { stroke: token('muted'), grid, ticks: { show: false }, font } satisfies uPlot.Axis
    return {
      width,
      height,
      padding: [6, 16, 0, 0],
      legend: { show: false },
      pxAlign: 1,
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false },
        sync: { key: TOGETHER, setSeries: false, scales: ['x', null] },
        bind: {
          mousedown: (u, _target, handler) => (event) => {
            if (event.shiftKey || event.button === 1) this.drag(u, event)
            else handler(event)
            return null
          },
          dblclick: () => () => {
            this.gestures.live()
            return null
          },
        },
      },
      scales: {
        x: { time: false, range: () => [this.from, this.to] },
        y: { range: (_u, min, max) => yRange(type, min, max) },
      },
      axes: [
        { ...axis, size: 22, gap: 4, space: 70, incrs: STEPS, splits: localSplits, values: (_u, splits) => splits.map((at, n) => label(at, splits[n - 1], this.to - this.from)) },
        { ...axis, size: 46, gap: 4, space: 30, values: (_u, splits) => splits.map((value) => number(value)) },
      ],
      series: [
        {},
        ...frame.series.map((one, at): uPlot.Series => {
          const stroke = colour(at, theme)
          const last = at === frame.series.length - 1
          const fill = type === 'area' ? `${stroke}33` : type === 'stacked' && last ? `${stroke}cc` : undefined
          return { label: one.name, stroke, width: type === 'stacked' ? 0.75 : 1.25, fill, points: { show: false }, spanGaps: false }
        }),
      ],
      hooks: {
        drawClear: [(u) => this.gaps(u)],
        setSelect: [
          (u) => {
            if (u.select.width < 4) return
            const after = u.posToVal(u.select.left, 'x')
            const before = u.posToVal(u.select.left + u.select.width, 'x')
            u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false)
            this.gestures.select(after, before)
          },
        ],
        setCursor: [(u) => this.gestures.hover((u.cursor.left ?? -1) >= 0 ? (u.cursor.idx ?? null) : null)],
        ready: [(u) => this.listen(u)],
      },
    }
  }

  /** Spans in which nothing was collected, though it was before, are shaded, so that they are not taken for zeros. */
  private gaps(u: uPlot): void {
    const frame = this.frame
    if (!frame || frame.times.length < 2) return
    const { ctx } = u
    ctx.save()
    ctx.fillStyle = token('gap')
    const { top, height } = u.bbox
    let began: number | null = null
    const paint = (until: number) => {
      if (began === null) return
      const left = Math.max(u.valToPos(began, 'x', true), u.bbox.left)
      const right = Math.min(u.valToPos(until, 'x', true), u.bbox.left + u.bbox.width)
      if (right > left) ctx.fillRect(left, top, right - left, height)
      began = null
    }
    frame.times.forEach((time, row) => {
      const empty = frame.series.every((one) => one.values[row] === null)
      // The newest rows may still be on their way.
      if (empty && time > frame.first && time < frame.last) began ??= Math.max(time - frame.step, frame.first)
      else paint(time - frame.step)
    })
    paint(Math.min(frame.times.at(-1) ?? 0, frame.last))
    ctx.restore()
  }

  private drag(u: uPlot, event: MouseEvent): void {
    event.preventDefault()
    const perPixel = (this.to - this.from) / (u.bbox.width / devicePixelRatio)
    let last = event.clientX
    const move = (next: MouseEvent) => {
      const seconds = (last - next.clientX) * perPixel
      last = next.clientX
      if (seconds !== 0) this.gestures.pan(seconds)
    }
    const end = () => {
      removeEventListener('mousemove', move)
      removeEventListener('mouseup', end)
    }
    addEventListener('mousemove', move)
    addEventListener('mouseup', end)
  }

  private listen(u: uPlot): void {
    const { over } = u
    over.addEventListener(
      'wheel',
      (event) => {
        if (!event.shiftKey && !event.ctrlKey && !event.altKey) return
        event.preventDefault()
        const turn = event.deltaY || event.deltaX
        const at = u.posToVal(event.clientX - over.getBoundingClientRect().left, 'x')
        this.gestures.zoom(turn > 0 ? 1.3 : 1 / 1.3, at)
      },
      { passive: false },
    )
    // Fingers: where each was last.
    const fingers = new Map<number, number>()
    const spread = () => {
      const [a = 0, b = 0] = [...fingers.values()]
      return { width: Math.max(Math.abs(a - b), 10), middle: (a + b) / 2 }
    }
    over.addEventListener('pointerdown', (event) => {
      if (event.pointerType === 'touch') fingers.set(event.pointerId, event.clientX)
    })
    over.addEventListener('pointermove', (event) => {
      const was = fingers.get(event.pointerId)
      if (was === undefined) return
      const before = spread()
      fingers.set(event.pointerId, event.clientX)
      const perPixel = (this.to - this.from) / (u.bbox.width / devicePixelRatio)
      if (fingers.size === 1) this.gestures.pan((was - event.clientX) * perPixel)
      else if (fingers.size === 2) {
        const after = spread()
        const at = u.posToVal(after.middle - over.getBoundingClientRect().left, 'x')
        this.gestures.zoom(before.width / after.width, at)
      }
    })
    for (const kind of ['pointerup', 'pointercancel', 'pointerleave'] as const) {
      over.addEventListener(kind, (event) => fingers.delete(event.pointerId))
    }
  }
}

function yRange(type: ChartType, min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1]
  let [low, high] = [min, max]
  // Lines that stay far from zero are shown where they are; what is filled begins at zero.
  if (type !== 'line' || (low > 0 && low < high * 0.6)) low = Math.min(low, 0)
  if (high < 0 && type !== 'line') high = 0
  if (low === high) return low === 0 ? [0, 1] : low > 0 && type !== 'line' ? [0, high * 1.1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1]
  const room = (high - low) * 0.08
  return [low === 0 || (low > 0 && low < room) ? 0 : low - room, high === 0 ? 0 : high + room]
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000]

/** Full minutes, hours and days of the viewer's own clock. */
function localSplits(_u: uPlot, _axis: number, min: number, max: number, step: number): number[] {
  const offset = new Date(max * 1000).getTimezoneOffset() * 60
  const out: number[] = []
  for (let at = Math.ceil((min - offset) / step) * step + offset; at <= max; at += step) out.push(at)
  return out
}

function label(at: number, previous: number | undefined, span: number): string {
  if (span > 3 * 86_400) return day(at).slice(5)
  const text = span < 600 ? clock(at) : clock(at).slice(0, 5)
  return previous !== undefined && day(previous) !== day(at) ? day(at).slice(5) : text
}
