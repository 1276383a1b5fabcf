/**
 * A long list of which only what is on the screen exists. It scrolls with the page, so the browser's own keys and bars work, and tells
 * who reads it how long it is.
 */
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

const BEYOND = 6

export type Span = { from: number; to: number }

export function VirtualRows<T>({ items, height, row, onSpan }: {
  items: T[]
  /** Pixels of a row. */
  height: number
  row: (item: T, at: number) => ComponentChildren
  /** Told which rows are there. */
  onSpan?: (span: Span) => void
}) {
  const box = useRef<HTMLDivElement>(null)
  const [span, setSpan] = useState<Span>({ from: 0, to: 40 })
  const measure = () => {
    const top = box.current?.getBoundingClientRect().top ?? 0
    const from = Math.max(0, Math.floor(-top / height) - BEYOND)
    const to = Math.ceil((innerHeight - top) / height) + BEYOND
    setSpan((old) => (old.from === from && old.to === to ? old : { from, to }))
  }
  useLayoutEffect(measure, [items.length, height])
  useEffect(() => {
    let asked = 0
    const later = () => {
      cancelAnimationFrame(asked)
      asked = requestAnimationFrame(measure)
    }
    addEventListener('scroll', later, { passive: true })
    addEventListener('resize', later)
    return () => {
      cancelAnimationFrame(asked)
      removeEventListener('scroll', later)
      removeEventListener('resize', later)
    }
  }, [height])
  const from = Math.min(span.from, Math.max(0, items.length - 1))
  const to = Math.min(span.to, items.length)
  useEffect(() => onSpan?.({ from, to }), [from, to, items])
  return (
    <div ref={box} role="rowgroup" style={{ height: `${items.length * height}px`, paddingTop: `${from * height}px`, boxSizing: 'border-box' }}>
      {items.slice(from, to).map((item, at) => row(item, from + at))}
    </div>
  )
}
