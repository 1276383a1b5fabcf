/** What surrounds every view: the bar with its tabs, the note that the agent is gone, the view itself. */
import { Component, type ComponentChildren } from 'preact'
import { useEffect } from 'preact/hooks'
import { reach } from './api/client'
import { duration } from './model/time'
import { agentName, fleet, fleetError, raised } from './state/fleet'
import { hashOf, route, type View, view } from './state/place'
import { theme, toggleTheme } from './state/theme'
import { Glyph } from './ui/glyph'
import { useNow } from './ui/now'
import { AlertsView } from './views/alerts'
import { ChartsView } from './views/charts'
import { ConfigView } from './views/config'
import { NodesView } from './views/nodes'
import { TopView } from './views/top'
import { TopologyView } from './views/topology'

const TABS: [View, string][] = [
  ['nodes', 'Nodes'],
  ['charts', 'Charts'],
  ['topology', 'Topology'],
  ['top', 'Top'],
  ['alerts', 'Alerts'],
  ['config', 'Config'],
]

const PAGES: Record<View, () => ComponentChildren> = {
  nodes: () => <NodesView />,
  charts: () => <ChartsView />,
  topology: () => <TopologyView />,
  top: () => <TopView />,
  alerts: () => <AlertsView />,
  config: () => <ConfigView />,
}

export function App() {
  const now = view.value
  const node = route.value.node
  useEffect(() => {
    const name = TABS.find(([view]) => view === now)?.[1] ?? ''
    document.title = [node && node !== '*' ? node : name, agentName.value, 'netdata'].filter(Boolean).join(' · ')
  }, [now, node, agentName.value])
  const { critical, warning } = raised.value
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus() }}>To the content</a>
      <header class="bar">
        <a class="brand" href={hashOf('nodes')} aria-label={`Agent ${agentName.value}`}>
          <Glyph name="pulse" />
          <span>{agentName.value || 'netdata'}</span>
        </a>
        <nav class="tabs" aria-label="Views">
          {TABS.map(([view, name]) => (
            <a key={view} href={hashOf(view, view === 'charts' && now !== 'charts' ? node : null)} aria-current={view === now ? 'page' : undefined}>
              <Glyph name={view} />
              <span>{name}</span>
              {view === 'alerts' && critical + warning > 0 && (
                <b class={`count ${critical > 0 ? 'critical' : 'warning'}`} aria-label={`${critical} critical, ${warning} warnings`}>{critical + warning}</b>
              )}
            </a>
          ))}
        </nav>
        <span class="grow" />
        <button type="button" class="icon" onClick={toggleTheme} aria-label={theme.value === 'dark' ? 'Light colours' : 'Dark colours'}>
          <Glyph name={theme.value === 'dark' ? 'sun' : 'moon'} />
        </button>
      </header>
      <Lost />
      <main id="main" tabIndex={-1} class={`view view-${now}`}>
        <Fence key={now}>{PAGES[now]()}</Fence>
      </main>
    </>
  )
}

/** Said above everything while the agent does not answer; what is shown below is then what it said last. */
function Lost() {
  const state = reach.value
  const now = useNow(!state.ok)
  if (state.ok) {
    const error = fleetError.value
    return error && !fleet.value ? <p class="lost" role="alert">{error}</p> : null
  }
  return (
    <p class="lost" role="alert">
      The agent is gone for {duration((now - state.since) / 1000)}: {state.reason}. What you see is what it said last; it is asked again every second.
    </p>
  )
}

/** A view that fails takes only itself down. */
class Fence extends Component<{ children: ComponentChildren }, { error?: Error }> {
  override componentDidCatch(error: Error) {
    console.error(error)
    this.setState({ error })
  }
  override render() {
    const { error } = this.state
    if (!error) return this.props.children
    return (
      <div class="note error" role="alert">
        <p>This view cannot be shown: {error.message}</p>
        <button type="button" onClick={() => this.setState({ error: undefined })}>Try again</button>
      </div>
    )
  }
}
