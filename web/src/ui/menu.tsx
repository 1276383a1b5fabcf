/** A small menu behind three dots. Opens by click or Enter, closes by Escape, by a choice, or when the focus leaves it. */
import type { ComponentChildren } from 'preact'
import { useRef, useState } from 'preact/hooks'
import { useClosedOutside } from './outside'

export function Menu({ label, children }: { label: string; children: ComponentChildren }) {
  const [open, setOpen] = useState(false)
  const box = useRef<HTMLDivElement>(null)
  const button = useRef<HTMLButtonElement>(null)
  useClosedOutside(box, open, () => setOpen(false))
  return (
    <div
      class="menu"
      ref={box}
      onKeyDown={(event) => {
        if (event.key === 'Escape' && open) {
          setOpen(false)
          button.current?.focus()
        }
      }}
    >
      <button type="button" class="icon" ref={button} aria-label={label} aria-expanded={open} onClick={() => setOpen(!open)}>⋯</button>
      {open && <div class="menu-list" onClick={() => setOpen(false)}>{children}</div>}
    </div>
  )
}
