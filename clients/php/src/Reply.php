<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\InvalidAnswer;

/** An answer of the server. */
final class Reply
{
    private ?array $json = null;

    /**
     * @param array<string, list<string>> $headers by lower-case name
     * @param float                       $sentAt  when its request was sent, by `Deadline::now()`
     * @param int                         $attempt 1 when the request was sent once
     */
    public function __construct(
        public readonly int $status,
        private readonly array $headers,
        public readonly string $body,
        public readonly float $sentAt,
        public readonly int $attempt,
    ) {
    }

    public function header(string $name): ?string
    {
        return $this->headers[strtolower($name)][0] ?? null;
    }

    /** @throws InvalidAnswer when the body is no JSON object */
    public function json(): array
    {
        if (null === $this->json) {
            $value = json_decode($this->body, true, 1024);
            if (!\is_array($value)) {
                throw new InvalidAnswer('The server answered something that is not a JSON object.', 'invalid_answer', $this->status);
            }
            $this->json = $value;
        }

        return $this->json;
    }

    /** The stable code of a refusal; empty when there is none. */
    public function code(): string
    {
        return $this->refusal('code');
    }

    /** What was wrong, in a sentence. */
    public function sentence(): string
    {
        return $this->refusal('error') ?: sprintf('The server answered with status %d.', $this->status);
    }

    private function refusal(string $member): string
    {
        $value = json_decode($this->body, true, 1024);

        return \is_array($value) && \is_string($value[$member] ?? null) ? $value[$member] : '';
    }
}
