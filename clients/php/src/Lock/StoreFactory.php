<?php

declare(strict_types=1);

namespace SmallResource\Client\Lock;

use SmallResource\Client\Client;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\PersistingStoreInterface;
use Symfony\Component\Lock\Store\StoreFactory as SymfonyStoreFactory;

/**
 * Makes stores of DSNs: `small-resource://KEY@host:9501?ttl=30&prefix=shop:`, or `small-resources://` over TLS. Every
 * other DSN is Symfony's.
 */
final class StoreFactory
{
    private const NUMBERS = ['ttl', 'max_wait', 'timeout'];

    public static function createStore(#[\SensitiveParameter] string|object $connection, mixed ...$more): PersistingStoreInterface
    {
        if ($connection instanceof Client) {
            return new ResourceServerStore($connection);
        }
        if (!\is_string($connection) || !preg_match('~^small-resource(s?)://~', $connection, $scheme)) {
            return SymfonyStoreFactory::createStore($connection, ...$more);
        }
        // The message names no part of the DSN, which holds the key.
        $dsn = parse_url(preg_replace('~^[^:]+~', 'http', $connection));
        if (!\is_array($dsn) || '' === ($dsn['user'] ?? '') || isset($dsn['pass']) || !\in_array($dsn['path'] ?? '/', ['', '/'], true) || isset($dsn['fragment'])) {
            throw new InvalidArgumentException('The DSN of the lock server is not understood: small-resource://KEY@host:9501?ttl=30&prefix=shop: is expected.');
        }
        parse_str($dsn['query'] ?? '', $options);
        self::check($options);
        $client = new Client(
            sprintf('http%s://%s:%d', $scheme[1], $dsn['host'], $dsn['port'] ?? 9501),
            rawurldecode($dsn['user']),
            timeout: (float) ($options['timeout'] ?? 10),
        );

        return new ResourceServerStore(
            $client,
            (float) ($options['ttl'] ?? 300),
            $options['prefix'] ?? '',
            isset($options['max_wait']) ? (float) $options['max_wait'] : null,
            (bool) ($options['create'] ?? true),
        );
    }

    private static function check(array $options): void
    {
        $unknown = array_diff(array_keys($options), [...self::NUMBERS, 'prefix', 'create']);
        if ($unknown) {
            throw new InvalidArgumentException(sprintf('The DSN of the lock server takes ttl, prefix, max_wait, create and timeout, not "%s".', implode('", "', $unknown)));
        }
        foreach (self::NUMBERS as $option) {
            if (isset($options[$option]) && (!is_numeric($options[$option]) || $options[$option] <= 0)) {
                throw new InvalidArgumentException(sprintf('The option "%s" in the DSN of the lock server is a number of seconds above 0.', $option));
            }
        }
        if (!\in_array($options['create'] ?? '1', ['0', '1'], true)) {
            throw new InvalidArgumentException('The option "create" in the DSN of the lock server is 0 or 1.');
        }
    }
}
