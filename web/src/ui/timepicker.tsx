/** The span of time of all charts: steps back and forth, spans up to now, any two moments. */
import { useRef, useState } from 'preact/hooks'
import { duration, forInput, moment } from '../model/time'
import { ends, PRESETS, pan, span, standing, zoom } from '../model/window'
import { agentNow } from '../state/fleet'
import { setWindow, timeWindow } from '../state/window'
import { useClosedOutside } from './outside'

export function TimePicker() {
  const window = timeWindow.value
  const [open, setOpen] = useState(false)
  const box = useRef<HTMLDivElement>(null)
  useClosedOutside(box, open, () => setOpen(false))
  const length = span(window)
  const now = agentNow()
  const middle = (ends(window, now).after + ends(window, now).before) / 2
  return (
    <div class="time" ref={box} onKeyDown={(event) => event.key === 'Escape' && setOpen(false)}>
      <button type="button" class="icon" aria-label="Earlier" onClick={() => setWindow(pan(window, -length / 2, agentNow()))}>‹</button>
      <button type="button" class="time-now" aria-expanded={open} onClick={() => setOpen(!open)}>
        {window.live ? <><i class="dot live beat" />last {duration(length)}</> : <>{moment(window.after)} <span class="muted">+ {duration(length)}</span></>}
      </button>
      <button type="button" class="icon" aria-label="Later" disabled={window.live} onClick={() => setWindow(pan(window, length / 2, agentNow()))}>›</button>
      <button type="button" class="icon" aria-label="Longer" onClick={() => setWindow(zoom(window, 2, window.live ? now : middle, now))}>−</button>
      <button type="button" class="icon" aria-label="Shorter" onClick={() => setWindow(zoom(window, 0.5, window.live ? now : middle, now))}>+</button>
      {!window.live && <button type="button" class="primary" onClick={() => setWindow({ live: true, span: length })}>Live</button>}
      {open && (
        <div class="time-list">
          <div class="time-presets" role="group" aria-label="Up to now">
            {PRESETS.map(([seconds, name]) => (
              <button type="button" key={seconds} aria-pressed={window.live && window.span === seconds} onClick={() => { setWindow({ live: true, span: seconds }); setOpen(false) }}>{name}</button>
            ))}
          </div>
          <Between close={() => setOpen(false)} />
        </div>
      )}
    </div>
  )
}

function Between({ close }: { close: () => void }) {
  const shown = ends(timeWindow.value, agentNow())
  const [after, setAfter] = useState(forInput(shown.after))
  const [before, setBefore] = useState(forInput(shown.before))
  const [from, to] = [Date.parse(after) / 1000, Date.parse(before) / 1000]
  const sane = Number.isFinite(from) && Number.isFinite(to) && from < to
  return (
    <form
      class="time-between"
      onSubmit={(event) => {
        event.preventDefault()
        if (!sane) return
        setWindow(standing(from, to, agentNow() + 1))
        close()
      }}
    >
      <label>from <input type="datetime-local" step="1" value={after} onInput={(event) => setAfter(event.currentTarget.value)} /></label>
      <label>to <input type="datetime-local" step="1" value={before} onInput={(event) => setBefore(event.currentTarget.value)} /></label>
      <button type="submit" class="primary" disabled={!sane}>Show</button>
    </form>
  )
}
