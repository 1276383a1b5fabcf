/** Closes what is open when the pointer goes down outside of it. */
import type { RefObject } from 'preact'
import { useEffect } from 'preact/hooks'

export function useClosedOutside(box: RefObject<HTMLElement | null>, open: boolean, close: () => void) {
  useEffect(() => {
    if (!open) return
    const outside = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) close()
    }
    addEventListener('pointerdown', outside)
    return () => removeEventListener('pointerdown', outside)
  }, [open])
}
