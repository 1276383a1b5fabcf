/**
 * Asking again and again: one hook for everything that is live. A page that nobody sees asks nothing, an answer that takes long
 * is asked for less often, so that watching an agent never becomes its main work.
 */
import { useEffect, useRef, useState } from 'preact/hooks'
import { isAbort } from '../api/client'

/** Asking takes at most this share of the time. */
const SHARE = 1 / 15

export type Polled<T> = { data: T | undefined; error: string | undefined; again: () => void }

/** How long to wait between questions that are asked every `every` ms. */
export class Rhythm {
  private before = 0

  constructor(private readonly every: number) {}

  /** Milliseconds to wait after an answer that took `took`. One slow answer is no rule: it counts once the next is slow, too. */
  pause(took: number): number {
    const usual = Math.min(took, this.before)
    this.before = took
    return Math.max(this.every - took, usual / SHARE - usual, 50)
  }
}

/**
 * Calls `get` every `every` ms and gives its latest answer. `key` says what is asked for: when it changes, the old answer is
 * dropped and `get` called at once. No `every`: once.
 */
export function usePoll<T>(key: string, every: number | undefined, get: (signal: AbortSignal) => Promise<T>): Polled<T> {
  const [state, setState] = useState<{ key: string; data?: T; error?: string }>({ key })
  const [round, setRound] = useState(0)
  const latest = useRef(get)
  latest.current = get

  useEffect(() => {
    const abort = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    let waiting = false
    const rhythm = every === undefined ? undefined : new Rhythm(every)
    const step = async () => {
      if (document.hidden) {
        waiting = true
        return
      }
      const began = performance.now()
      try {
        const data = await latest.current(abort.signal)
        if (abort.signal.aborted) return
        setState({ key, data })
      } catch (error) {
        if (isAbort(error) || abort.signal.aborted) return
        const text = error instanceof Error ? error.message : String(error)
        setState((old) => ({ key, data: old.key === key ? old.data : undefined, error: text }))
      }
      if (rhythm) timer = setTimeout(step, rhythm.pause(performance.now() - began))
    }
    const shown = () => {
      if (!document.hidden && waiting) {
        waiting = false
        void step()
      }
    }
    document.addEventListener('visibilitychange', shown)
    void step()
    return () => {
      abort.abort()
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', shown)
    }
  }, [key, every, round])

  const current = state.key === key
  return {
    data: current ? state.data : undefined,
    error: current ? state.error : undefined,
    again: () => setRound((n) => n + 1),
  }
}
