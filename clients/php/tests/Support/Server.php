<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Support;

/** A server of its own: real binary, free port, temporary store. */
final class Server
{
    public const READ = 'key-read';
    public const LOCK = 'key-lock';
    public const WRITE = 'key-write';
    public const ADMIN = 'key-admin';

    private static ?self $shared = null;

    /** @var resource|null */
    private $process;
    private readonly string $folder;
    private int $port = 0;

    private function __construct(private readonly array $settings)
    {
        $this->folder = sys_get_temp_dir().'/srs-php-'.bin2hex(random_bytes(6));
        mkdir($this->folder, 0700);
        $pid = getmypid();
        register_shutdown_function(function () use ($pid): void {
            // Forked children of a test end here, too.
            if (getmypid() === $pid) {
                $this->stop();
                array_map('unlink', glob($this->folder.'/*') ?: []);
                rmdir($this->folder);
            }
        });
        $this->start();
    }

    /** One for all tests that do nothing to it. */
    public static function shared(): self
    {
        return self::$shared ??= self::with([]);
    }

    public static function with(array $settings): self
    {
        return new self($settings);
    }

    public static function binary(): string
    {
        $root = \dirname(__DIR__, 4);
        foreach (array_filter([getenv('SERVER_BINARY'), $root.'/target/release/small-resource-server', $root.'/target/debug/small-resource-server']) as $binary) {
            if (is_executable($binary)) {
                return $binary;
            }
        }

        throw new \RuntimeException('There is no server to test against: run "cargo build" or set SERVER_BINARY.');
    }

    public function uri(): string
    {
        return (isset($this->settings['TLS_CERT_FILE']) ? 'https' : 'http').'://127.0.0.1:'.$this->port;
    }

    /** The second start is on the port and with the store of the first one. */
    public function start(): void
    {
        $log = $this->folder.'/log';
        @unlink($log);
        $this->process = proc_open([self::binary()], [['file', '/dev/null', 'r'], ['file', $log, 'a'], ['file', $log, 'a']], $pipes, $this->folder, $this->settings + [
            'RESOURCE_READ' => self::READ, 'RESOURCE_READ_LOCK' => self::LOCK, 'RESOURCE_WRITE' => self::WRITE, 'RESOURCE_ADMIN' => self::ADMIN,
            'STORE' => 'sqlite', 'SQLITE_PATH' => $this->folder.'/resources.db', 'HTTP_HOST' => '127.0.0.1', 'HTTP_PORT' => (string) $this->port,
            'CONFIG_FILE' => '/dev/null', 'HTTP_WORKERS' => '2', 'SHUTDOWN_SECONDS' => '1',
        ]);
        $listening = Until::is(function () use ($log): ?array {
            if (!proc_get_status($this->process)['running']) {
                throw new \RuntimeException('The server did not start: '.file_get_contents($log));
            }

            return preg_match('~listens on https?://127\.0\.0\.1:(\d+)~', (string) @file_get_contents($log), $match) ? $match : null;
        }, 60, 'the server to listen');
        $this->port = (int) $listening[1];
        $anyCertificate = stream_context_create(['ssl' => ['verify_peer' => false]]);
        Until::is(fn () => @file_get_contents($this->uri().'/ready', false, $anyCertificate), 60, 'the server to be ready');
    }

    public function kill(): void
    {
        $this->signal(9);
        proc_close($this->process);
        $this->process = null;
    }

    public function signal(int $signal): void
    {
        posix_kill(proc_get_status($this->process)['pid'], $signal);
    }

    public function stop(): void
    {
        if (null !== $this->process) {
            proc_terminate($this->process, 18);
            $this->kill();
        }
    }

    /** A second client that shares no code with the one that is tested. */
    public function asked(string $method, string $path, ?array $body = null, string $key = self::ADMIN, array $headers = []): array
    {
        $context = stream_context_create(['http' => [
            'method' => $method, 'ignore_errors' => true, 'timeout' => 20, 'protocol_version' => 1.1,
            'header' => ['x-api-key: '.$key, 'Content-Type: application/json', 'Connection: close', ...$headers],
            'content' => null === $body ? '' : json_encode((object) $body),
        ]]);
        $text = file_get_contents($this->uri().$path, false, $context);
        preg_match('~ (\d{3})~', $http_response_header[0], $match);

        return ['status' => (int) $match[1]] + (json_decode((string) $text, true) ?: []);
    }

    /** Who holds the lock, by the server's truth: the owner; null when nobody does. */
    public function owner(string $name): ?string
    {
        return $this->asked('GET', '/resource/'.rawurlencode($name))['holder']['owner'] ?? null;
    }

    /** Whether somebody else could not have the lock now. */
    public function isTaken(string $name): bool
    {
        $answer = $this->asked('PUT', '/resource/'.rawurlencode($name).'/lock/lock?queue=0', ['owner' => 'another']);
        if (200 === $answer['status']) {
            $this->asked('PUT', '/resource/'.rawurlencode($name).'/lock/unlock', null, self::ADMIN, ['X-Ticket: '.$answer['ticket']]);
        }

        return 409 === $answer['status'];
    }

    public function create(string $name): void
    {
        $this->asked('POST', '/resource', ['name' => $name, 'timeout' => 0]);
    }

    public function forceOff(string $name, string $reason = 'a test'): void
    {
        $this->asked('POST', '/resource/'.rawurlencode($name).'/force-unlock', ['reason' => $reason]);
    }
}
