<?php

declare(strict_types=1);

namespace SmallResource\Client\Renewal;

use SmallResource\Client\Client;
use SmallResource\Client\Deadline;
use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Lease;
use SmallResource\Client\Request;

/**
 * Renews from a small PHP process beside this one, so that it goes on while this one sleeps, computes or waits for
 * a database. It ends with this process, however that ends.
 */
final class ProcessGuard extends Guard
{
    /**
     * Starts the renewer as nobody's child, so that a parent which waits for its children never meets it, out of
     * reach of what a terminal sends to the whole group, and without the files and sockets of this process: a copy
     * that stays open would keep a flock, and others waiting for the end of a pipe.
     */
    private const LAUNCHER = <<<'SH'
        many=; (eval 'exec 99>&-') 2>/dev/null && many=1
        for file in /proc/self/fd/* /dev/fd/*; do
            number=${file##*/}
            case $number in [012]|*[!0-9]*) continue ;; ?) ;; *) [ "$many" ] || continue ;; esac
            eval "exec $number>&-"
        done 2>/dev/null
        exec 3<&0
        command -v setsid >/dev/null && set -- setsid "$@"
        "$@" <&3 3<&- &
        SH;

    private const ENVIRONMENT = ['PATH', 'LD_LIBRARY_PATH', 'SSL_CERT_FILE', 'SSL_CERT_DIR'];

    /** Seconds that the newest report may take to arrive, before the lock counts as lost without it. */
    private const PATIENCE = 0.5;

    /** @var resource|null */
    private $socket;
    private string $unread = '';
    private bool $alone = false;

    public function __construct(Client $client, Lease $lease, float $every, float $ttl, ?float $maxLifetime)
    {
        parent::__construct($client, $lease, $every, $ttl, $maxLifetime);
        $this->start();
    }

    /** Also when the renewer itself was killed: then this process renews, in each check. */
    public function check(): void
    {
        $this->report();
        if ($this->alone) {
            $this->renewIfDue();
        }
        parent::check();
    }

    public function report(): void
    {
        // What the renewer says is for the process that started it: a fork would read it away.
        if (null === $this->socket || !$this->lease->isOfThisProcess()) {
            return;
        }
        $news = $this->read();
        // Whoever was busy for long finds old reports first; the newest one follows once there is room for it.
        $patience = Deadline::in(self::PATIENCE);
        while ($news && $this->lease->isOverdue() && null !== $this->socket && !$patience->passed()) {
            $read = [$this->socket];
            $none = null;
            @stream_select($read, $none, $none, 0, (int) ($patience->remaining() * 1e6));
            $this->read();
        }
        if (null !== $this->lease->lost()) {
            $this->end();
        }
    }

    protected function end(): void
    {
        if (null !== $this->socket) {
            @fwrite($this->socket, "stop\n");
            $this->hangUp();
        }
    }

    private function start(): void
    {
        if (!\function_exists('proc_open')) {
            throw new \LogicException('proc_open() is disabled, so no process can renew the lock. Set auto_renew to "loop" and call check() or each() often enough.');
        }
        $pair = stream_socket_pair(\STREAM_PF_UNIX, \STREAM_SOCK_STREAM, 0);
        if (false === $pair) {
            throw new \RuntimeException('No pair of sockets could be made to talk to the process that renews the lock.');
        }
        [$this->socket, $theirs] = $pair;
        $launcher = proc_open(
            [is_executable('/bin/bash') ? '/bin/bash' : '/bin/sh', '-c', self::LAUNCHER, 'renew', self::php(), '-n', \dirname(__DIR__, 2).'/bin/renew.php'],
            [$theirs, $theirs, ['file', '/dev/null', 'w']],
            $pipes,
            '/',
            // So that ps shows whose it is. Of the rest, what may hold secrets is not passed on.
            ['LOCK_RENEWER_OF' => (string) getmypid()] + array_intersect_key(getenv(), array_flip(self::ENVIRONMENT)),
        );
        fclose($theirs);
        // -1: a handler of SIGCHLD was quicker to wait for it.
        if (false === $launcher || proc_close($launcher) > 0) {
            $this->hangUp();

            throw new \RuntimeException('The process that renews the lock could not be started.');
        }
        // Key and ticket go through the socket: arguments and environments can be read by others.
        fwrite($this->socket, $this->order()."\n");
        stream_set_blocking($this->socket, false);
    }

    private function order(): string
    {
        return json_encode([
            'url' => $this->client->address().Lease::path($this->lease->name, 'renew'),
            'ticket' => $this->lease->ticket,
            'every' => $this->every,
            'body' => Request::json(['ttl' => Request::seconds($this->ttl)]),
            'nextAt' => $this->nextAt,
            'deadline' => $this->lease->deadline()?->instant(),
            'until' => $this->until?->instant(),
            'parent' => getmypid(),
            'parentStart' => ProcessLife::startOf(getmypid()),
            'ssl' => array_filter(['cafile' => \ini_get('openssl.cafile') ?: \ini_get('curl.cainfo'), 'capath' => \ini_get('openssl.capath')]),
        ] + $this->client->forRenewer(), \JSON_THROW_ON_ERROR | \JSON_PRESERVE_ZERO_FRACTION);
    }

    /** @return bool whether something was reported */
    private function read(): bool
    {
        while (\is_string($read = @fread($this->socket, 8192)) && '' !== $read) {
            $this->unread .= $read;
        }
        $reports = explode("\n", $this->unread);
        // What has no newline yet is the first part of a report.
        $this->unread = array_pop($reports);
        foreach ($reports as $report) {
            $this->understand($report);
        }
        if (feof($this->socket)) {
            $this->hangUp();
            $this->alone = true;
            if (null === $this->lease->lost()) {
                $this->client->logger()->warning('The process that renews the lock "{name}" has ended; check() renews it from now on.', ['name' => $this->lease->name]);
            }
        }

        return [] !== $reports;
    }

    private function understand(string $report): void
    {
        $report = json_decode($report, true);
        if (\is_array($report) && \array_key_exists('deadline', $report)) {
            $this->lease->extend(null === $report['deadline'] ? null : Deadline::at((float) $report['deadline']));
        } elseif (\is_array($report) && \is_array($report['lost'] ?? null)) {
            $lost = $report['lost'];
            $this->lease->lose('deadline_passed' === $lost['code']
                ? LockLost::deadlinePassed($this->lease->name)
                : LockLost::fromAnswer($lost, (int) $lost['status'], (string) $lost['error'], (string) $lost['code']));
        } else {
            $this->lease->lose(new LockLost('The process that renews the lock said something unknown.', 'renewer_failed'));
        }
    }

    private function hangUp(): void
    {
        if (null !== $this->socket) {
            fclose($this->socket);
            $this->socket = null;
        }
    }

    private static function php(): string
    {
        return 'cli' === \PHP_SAPI && '' !== \PHP_BINARY ? \PHP_BINARY : \PHP_BINDIR.'/php';
    }
}
