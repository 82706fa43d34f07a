import { render } from 'preact';
import { App } from './app.js';
import './style.css';

render(<App />, document.getElementById('app')!);

if ('serviceWorker' in navigator && !import.meta.env.DEV) {
  // Without it the app works as long as there is a network.
  navigator.serviceWorker.register('sw.js').catch((error) => console.warn('not available offline', error));
}
