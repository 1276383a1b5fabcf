/** A line without axes, as high as a word. */
import { useEffect, useRef } from 'preact/hooks'
import { token } from '../charts/palette'
import { theme } from '../state/theme'

export function Spark({ values, max, tone, label }: { values: (number | null)[] | undefined; max?: number; tone: string; label: string }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const dark = theme.value
  useEffect(() => {
    const element = canvas.current
    const ctx = element?.getContext('2d')
    if (!element || !ctx) return
    const ratio = devicePixelRatio
    const width = element.clientWidth
    const height = element.clientHeight
    element.width = width * ratio
    element.height = height * ratio
    if (!values || values.length < 2) return
    ctx.scale(ratio, ratio)
    const top = Math.max(max ?? 0, ...values.map((value) => value ?? 0)) || 1
    const x = (at: number) => (at / (values.length - 1)) * width
    const y = (value: number) => height - 1 - (value / top) * (height - 3)
    const line = token(tone)
    ctx.strokeStyle = line
    ctx.fillStyle = `${line}26`
    ctx.lineWidth = 1.25
    ctx.lineJoin = 'round'
    let began = -1
    for (let at = 0; at <= values.length; at += 1) {
      const value = values[at]
      if (value !== null && value !== undefined) {
        if (began < 0) began = at
        continue
      }
      if (began >= 0) {
        ctx.beginPath()
        for (let p = began; p < at; p += 1) ctx.lineTo(x(p), y(values[p]!))
        ctx.stroke()
        ctx.lineTo(x(at - 1), height)
        ctx.lineTo(x(began), height)
        ctx.fill()
      }
      began = -1
    }
  }, [values, max, tone, dark])
  return <canvas class="spark" ref={canvas} role="img" aria-label={label} />
}
