/**
 * Where the page is: which path it was served at, and what of it the hash says to show. The hash holds everything a shared link
 * must bring back: `#/charts/NODE?after=-900&q=disk`.
 */
import { computed, signal } from '@preact/signals'

export const VIEWS = ['nodes', 'charts', 'topology', 'top', 'alerts', 'config'] as const
export type View = (typeof VIEWS)[number]

/** Splits the path of a page into what the agent's paths begin with and the host that the page is about. */
export function splitPath(path: string): { root: string; host: string | null } {
  const found = /^(.*)\/host\/([^/]+)\/(?:index\.html)?$/.exec(path)
  if (found) return { root: found[1] ?? '', host: decodeURIComponent(found[2] ?? '') }
  return { root: path.replace(/\/[^/]*$/, ''), host: null }
}

export type Route = { view: View; node: string | null; params: URLSearchParams }

/** Reads a hash; what is not known leads to `fallback`. */
export function parseHash(hash: string, fallback: Route): Route {
  const found = /^#\/([a-z]+)(?:\/([^?]*))?(?:\?(.*))?$/.exec(hash)
  const view = VIEWS.find((known) => known === found?.[1])
  if (!found || !view) return fallback
  let node: string | null = null
  try {
    node = found[2] ? decodeURIComponent(found[2]) : null
  } catch {
    node = null
  }
  return { view, node, params: new URLSearchParams(found[3] ?? '') }
}

export function hashOf(view: View, node?: string | null, params?: URLSearchParams | Record<string, string>): string {
  const text = new URLSearchParams(params ?? {}).toString()
  return `#/${view}${node ? `/${encodeURIComponent(node)}` : ''}${text ? `?${text}` : ''}`
}

const browser = typeof location !== 'undefined'
export const place = splitPath(browser ? location.pathname : '/')

const first: Route = place.host
  ? { view: 'charts', node: place.host, params: new URLSearchParams() }
  : { view: 'nodes', node: null, params: new URLSearchParams() }

export const route = signal<Route>(browser ? parseHash(location.hash, first) : first)
export const view = computed(() => route.value.view)

if (browser) {
  addEventListener('hashchange', () => {
    route.value = parseHash(location.hash, first)
  })
}

/** Shows something else; the way back is kept. */
export function go(view: View, node?: string | null, params?: Record<string, string>): void {
  location.hash = hashOf(view, node, params)
}

/** Changes what the hash says besides the view, in place: no entry of the history for each letter typed. */
export function setParams(changes: Record<string, string | null>): void {
  const { view, node, params } = route.value
  const next = new URLSearchParams(params)
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') next.delete(name)
    else next.set(name, value)
  }
  if (next.toString() === params.toString()) return
  history.replaceState(null, '', hashOf(view, node, next))
  route.value = { view, node, params: next }
}
