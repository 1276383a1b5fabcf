/** Begins: the styles, the watch over the nodes, the page. */
import { render } from 'preact'
import 'uplot/dist/uPlot.min.css'
import './style.css'
import { App } from './app'
import { watchFleet } from './state/fleet'

watchFleet()
render(<App />, document.getElementById('app')!)
