<?php

declare(strict_types=1);

namespace SmallResource\Client\Bundle;

use SmallResource\Client\Reply;
use SmallResource\Client\Request;
use Symfony\Component\HttpFoundation\Request as HttpRequest;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpKernel\DataCollector\DataCollector;
use Symfony\Component\HttpKernel\DataCollector\LateDataCollectorInterface;

/** Shows in the profiler what the lock server was asked, how it answered and how long that took; no key, no ticket. */
final class LockDataCollector extends DataCollector implements LateDataCollectorInterface
{
    /** A worker with debug switched on goes on for days. */
    private const REQUESTS_MAX = 500;

    /** @var list<array{verb: string, name: string, outcome: string, seconds: float, attempts: int|null}> */
    private array $requests = [];

    /** @param Reply|null $reply null: there was none that counts */
    public function note(Request $request, ?Reply $reply, float $seconds): void
    {
        [$name, $verb] = self::whatIsAsked($request);
        $this->requests[] = ['verb' => $verb, 'name' => $name, 'outcome' => self::outcome($reply), 'seconds' => $seconds, 'attempts' => $reply?->attempt];
        $this->requests = \array_slice($this->requests, -self::REQUESTS_MAX);
    }

    public function collect(HttpRequest $request, Response $response, ?\Throwable $exception = null): void
    {
    }

    public function lateCollect(): void
    {
        $this->data = ['requests' => $this->requests];
    }

    public function reset(): void
    {
        $this->requests = $this->data = [];
    }

    public function getName(): string
    {
        return 'small_resource';
    }

    public function getRequests(): array
    {
        return $this->data['requests'] ?? [];
    }

    public function getSeconds(): float
    {
        return array_sum(array_column($this->getRequests(), 'seconds'));
    }

    /** How many were refused, found the lock taken or had no answer. */
    public function getFailures(): int
    {
        return \count(array_filter($this->getRequests(), static fn (array $request) => !\in_array($request['outcome'], ['held', 'waits', 'done'], true)));
    }

    /** @return array{string, string} name and verb */
    private static function whatIsAsked(Request $request): array
    {
        $segments = array_map('rawurldecode', \array_slice(explode('/', $request->path), 2));
        $verb = match (true) {
            3 === \count($segments) => $segments[2],
            2 === \count($segments) => ('GET' === $request->method ? 'read ' : 'write ').$segments[1],
            'POST' === $request->method => 'create',
            [] === $segments => 'list',
            default => 'look',
        };

        return [$segments[0] ?? '', $verb];
    }

    private static function outcome(?Reply $reply): string
    {
        if (null === $reply) {
            return 'no answer';
        }
        if ($reply->status >= 300) {
            return $reply->code() ?: (string) $reply->status;
        }
        $locked = json_decode($reply->body, true, 1024);

        return match (\is_array($locked) ? $locked['locked'] ?? null : null) {
            true => 'held',
            false => 'waits',
            default => 'done',
        };
    }
}
