<?php

declare(strict_types=1);

// Renews one lock for the process that started it, and ends with it. Started by Renewal\ProcessGuard with a socket
// as input and output: one line of JSON comes in, then "stop"; each report that goes out is one line of JSON.
// It runs without configuration, extensions and autoloading: it has to be small, one runs beside each lock.

namespace SmallResource\Client;

use SmallResource\Client\Renewal\ProcessLife;

require __DIR__.'/../src/Deadline.php';
require __DIR__.'/../src/Renewal/ProcessLife.php';

/** The last words are said; there is nothing more to do. */
final class Over extends \Exception
{
}

final class Renewer
{
    private float $nextAt;
    private ?float $deadline;
    private string $unsent = '';
    private int $failures = 0;

    public function __construct(private readonly array $order)
    {
        $this->nextAt = $order['nextAt'];
        $this->deadline = $order['deadline'];
        stream_set_blocking(\STDIN, false);
        stream_set_blocking(\STDOUT, false);
        // Service managers tell the whole group to end. The parent may take its time; this one ends with it.
        foreach (\function_exists('pcntl_signal') ? [\SIGHUP, \SIGINT, \SIGQUIT, \SIGTERM] : [] as $signal) {
            pcntl_signal($signal, \SIG_IGN);
        }
    }

    public function run(): void
    {
        try {
            while (true) {
                $this->listen();
                $this->endIfNotWanted();
                if (Deadline::now() >= $this->nextAt) {
                    $this->renew();
                }
            }
        } catch (Over) {
            $none = null;
            $write = [\STDOUT];
            @stream_select($none, $write, $none, 1);
            $this->send();
        }
    }

    /** Until the next renewal is due, or the parent said something; a second at most, to see whether it still lives. */
    private function listen(): void
    {
        $read = [\STDIN];
        $write = '' === $this->unsent ? null : [\STDOUT];
        $except = null;
        $pause = max(0.0, min(1.0, $this->nextAt - Deadline::now(), ($this->deadline ?? \INF) - Deadline::now()));
        if (@stream_select($read, $write, $except, 0, (int) ($pause * 1e6) + 1000) && $read) {
            if ('' !== (string) fread(\STDIN, 64) || feof(\STDIN)) {
                // Told to stop, or the other end is closed.
                exit(0);
            }
        }
        $this->send();
    }

    private function endIfNotWanted(): void
    {
        if (null !== $this->deadline && Deadline::now() >= $this->deadline) {
            $this->lost(0, 'deadline_passed', '');
        }
        if (!$this->parentLives()) {
            exit(0);
        }
        if (null !== $this->order['until'] && Deadline::now() >= $this->order['until']) {
            // No renewal any more; the lock is held until the lease ends, and known to be lost from then on.
            if (null === $this->deadline) {
                exit(0);
            }
            $this->nextAt = \INF;
        }
    }

    private function renew(): void
    {
        $id = bin2hex(random_bytes(12));
        $left = null === $this->deadline ? \INF : $this->deadline - Deadline::now();
        $context = stream_context_create(['ssl' => $this->order['ssl'], 'http' => [
            'method' => 'PUT',
            'header' => [
                'x-api-key: '.$this->order['key'], 'X-Ticket: '.$this->order['ticket'], 'X-Request-Id: '.$id,
                'Content-Type: application/json', 'Accept: application/json', 'Connection: close',
            ],
            'content' => $this->order['body'],
            'protocol_version' => 1.1,
            'ignore_errors' => true,
            'follow_location' => 0,
            // So that there is time for another attempt.
            'timeout' => min($this->order['timeout'], max(0.3, $left / 3), max(0.01, $left)),
        ]]);
        $sentAt = Deadline::now();
        $body = @file_get_contents($this->order['url'], false, $context, 0, 65536);
        // Set by the request, as a local variable.
        [$status, $headers] = $this->head($http_response_header ?? []);
        if (false === $body || ($headers['x-request-id'] ?? $id) !== $id) {
            $status = 0;
        }
        $answer = json_decode((string) $body, true);
        if (200 === $status && \is_array($answer)) {
            $this->renewed($answer, $sentAt);
        } elseif ($status >= 400 && $status < 500 && 429 !== $status && 408 !== $status) {
            $this->lost($status, $answer['code'] ?? '', $answer['error'] ?? 'The lock could not be renewed.', $answer['forced'] ?? null);
        } else {
            $this->failed((float) ($headers['retry-after'] ?? 0));
        }
    }

    private function renewed(array $answer, float $sentAt): void
    {
        if (null !== $this->deadline && Deadline::now() >= $this->deadline) {
            // Too late: the parent may have been told by now that the lock is lost, and that is final.
            $this->lost(0, 'deadline_passed', '');
        }
        $seconds = array_filter([($answer['ttl'] ?? 0) ?: null, isset($answer['expiresInMs']) ? $answer['expiresInMs'] / 1000 : null]);
        if ($seconds) {
            $deadline = Deadline::ofLease($sentAt, 0.0, (float) min($seconds), $this->order['drift'])->instant();
            $this->deadline = null === $this->deadline ? $deadline : max($this->deadline, $deadline);
        } else {
            $this->deadline = null;
        }
        $this->failures = 0;
        $this->nextAt = $sentAt + $this->order['every'];
        $this->report(['deadline' => $this->deadline]);
    }

    private function failed(float $retryAfter): void
    {
        $pause = min(1.0, 0.05 * 2 ** min(8, $this->failures++)) * (0.5 + mt_rand() / mt_getrandmax() / 2);
        $left = null === $this->deadline ? \INF : $this->deadline - Deadline::now();
        $this->nextAt = Deadline::now() + min(max($pause, $retryAfter), max(0.05, $left / 4));
    }

    private function lost(int $status, string $code, string $sentence, mixed $forced = null): never
    {
        $this->report(['lost' => ['status' => $status, 'code' => $code, 'error' => $sentence, 'forced' => $forced]]);

        throw new Over();
    }

    /**
     * Only the newest report counts, so one that waits to be read is replaced, except where it was sent in part: a
     * parent that does not read for hours must not stop the renewal.
     */
    private function report(array $report): void
    {
        $newline = strpos($this->unsent, "\n");
        $begun = false !== $newline && '{' !== ($this->unsent[0] ?? '') ? substr($this->unsent, 0, $newline + 1) : '';
        $this->unsent = $begun.json_encode($report, \JSON_PRESERVE_ZERO_FRACTION | \JSON_INVALID_UTF8_SUBSTITUTE)."\n";
        $this->send();
    }

    /** A report leaves in one write. */
    private function send(): void
    {
        if ('' !== $this->unsent) {
            $sent = @fwrite(\STDOUT, $this->unsent);
            $this->unsent = substr($this->unsent, (int) $sent);
        }
    }

    /** @return array{int, array<string, string>} */
    private function head(array $lines): array
    {
        $status = 0;
        $headers = [];
        foreach ($lines as $line) {
            if (preg_match('~^HTTP/\S+ (\d{3})~', $line, $match)) {
                $status = (int) $match[1];
            } elseif (2 === \count($pair = explode(':', $line, 2))) {
                $headers[strtolower($pair[0])] = trim($pair[1]);
            }
        }

        return [$status, $headers];
    }

    private function parentLives(): bool
    {
        if (null !== $this->order['parentStart']) {
            return ProcessLife::startOf($this->order['parent']) === $this->order['parentStart'];
        }

        return !\function_exists('posix_kill') || posix_kill($this->order['parent'], 0);
    }
}

$order = json_decode((string) fgets(\STDIN), true);
if (\is_array($order)) {
    (new Renewer($order))->run();
}
