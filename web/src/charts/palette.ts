/** Colours of series: told apart by most eyes, in both themes, neighbours far from each other. */
import type { Theme } from '../state/theme'

const LIGHT = ['#2f6fde', '#e08a00', '#0b8f6a', '#c2417c', '#7a5cd6', '#b4551d', '#0992a8', '#8a7a10', '#d64545', '#5b6b7f', '#4f9a1f', '#a04bc0']
const DARK = ['#6ba3ff', '#f2ae3d', '#3ecf9f', '#f07fb0', '#a892f5', '#e58a52', '#45c4d8', '#cfc04a', '#f27b7b', '#9babbd', '#8fd15c', '#cf8aec']

export function colour(at: number, theme: Theme): string {
  const list = theme === 'dark' ? DARK : LIGHT
  return list[at % list.length]!
}

/** A value of the style sheet, for what is drawn on a canvas. */
export function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}
