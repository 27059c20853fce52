import { mount } from 'svelte';
import './app.css';
import App from './App.svelte';
import { server } from './state/server.svelte';

const target = document.getElementById('app');
if (target) mount(App, { target });
server.connect();
