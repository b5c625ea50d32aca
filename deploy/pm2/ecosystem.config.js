// The daemon under pm2, beside workers that pm2 runs: pm2 start deploy/pm2/ecosystem.config.js
// A worker that runs as another user needs env: { CACHESVC_DAEMON_USER: "..." }, and the group.
// What pm2 has not (watchdog, sandbox, memory limit with L1 in it): docs/deploying.md.
module.exports = {
  apps: [
    {
      name: "cachesvc",
      script: "/opt/cachesvc/bin/cachesvc",
      args: "serve --config /etc/cachesvc/cachesvc.toml",
      interpreter: "none",
      // One daemon owns the cache of a host; a second one would exit with code 2.
      exec_mode: "fork",
      instances: 1,
      autorestart: true,
      restart_delay: 2000,
      // Only starts that fail within this time count as unstable.
      min_uptime: 5000,
      max_restarts: 1000000,
      // 2: a setting cannot work; starting again would not help.
      stop_exit_codes: [2],
      // SIGINT first, which drains as SIGTERM does. Twice grpc.drain_s and the queued writes.
      kill_timeout: 30000,
      // pm2 limits no log: pm2 install pm2-logrotate does (docs/deploying.md).
      // No max_memory_restart: it looks at the resident set, which has L1's mapped files in it.
      merge_logs: true,
    },
  ],
};
