/** The span of time that all charts show together: it lives in the hash, so a link brings it back. */
import { computed, signal } from '@preact/signals'
import { fromParams, toParams, type Window } from '../model/window'
import { route, setParams } from './place'

const spelled = computed(() => {
  const { params } = route.value
  return `${params.get('after') ?? ''},${params.get('before') ?? ''}`
})

export const timeWindow = computed(() => {
  const [after = '', before = ''] = spelled.value.split(',')
  return fromParams(new URLSearchParams({ after, before }))
})

/** What is moved right now: charts follow it at once and ask for its rows when it rests. */
export const moving = signal<Window | undefined>(undefined)

const REST_MS = 150
let resting: ReturnType<typeof setTimeout> | undefined

export function setWindow(next: Window): void {
  moving.value = next
  clearTimeout(resting)
  resting = setTimeout(() => {
    setParams(toParams(next))
    moving.value = undefined
  }, REST_MS)
}

export function currentWindow(): Window {
  return moving.value ?? timeWindow.value
}
