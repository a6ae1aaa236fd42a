<?php

declare(strict_types=1);

namespace SmallResource\Client;

/**
 * One request, which may be sent several times.
 *
 * @internal
 */
final class Request
{
    /**
     * @param string             $path already encoded, see `path()`
     * @param Deadline|bool|null $wait until when the server may hold the request; true: as long as it likes
     * @param bool               $once a second copy has another answer: libcurl, which resends a request by itself
     *                                 when a connection that it kept turns out to be dead, has to take a new one
     */
    public function __construct(
        public readonly string $method,
        public readonly string $path,
        public readonly array $query = [],
        public readonly ?string $body = null,
        public readonly ?string $ticket = null,
        public readonly ?string $idempotencyKey = null,
        public readonly Deadline|bool|null $wait = null,
        public readonly bool $once = false,
    ) {
    }

    /** The path of a resource, or of what is below it. */
    public static function path(string $name, string ...$below): string
    {
        $path = '/resource';
        foreach ([$name, ...$below] as $segment) {
            if (\in_array($segment, ['', '.', '..'], true)) {
                // HTTP clients resolve dot segments, encoded or not: the request would reach another resource.
                throw new \InvalidArgumentException(sprintf('"%s" cannot be the name of a resource or selector here.', $segment));
            }
            $path .= '/'.rawurlencode($segment);
        }

        return $path;
    }

    public static function json(array $value): string
    {
        return json_encode((object) $value, \JSON_THROW_ON_ERROR | \JSON_UNESCAPED_SLASHES | \JSON_UNESCAPED_UNICODE);
    }

    /** Seconds as the server reads them: to the millisecond, rounded up, so that a short time never becomes none. */
    public static function seconds(float $seconds): int|float
    {
        $milliseconds = (int) ceil(round($seconds * 1000, 3));

        return 0 === $milliseconds % 1000 ? intdiv($milliseconds, 1000) : $milliseconds / 1000;
    }
}
