<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Support;

/** A PHP process that runs some code; what it prints is read line by line. */
final class Script
{
    /** @var resource */
    private $process;
    /** @var resource */
    private $input;
    /** @var resource */
    private $output;
    private string $printed = '';
    private ?int $exit = null;

    public function __construct(string $code, array $variables, array $environment)
    {
        $program = sprintf("require %s; extract(json_decode(%s, true));\n%s", var_export(\dirname(__DIR__).'/bootstrap.php', true), var_export(json_encode($variables), true), $code);
        $this->process = proc_open([\PHP_BINARY, '-d', 'display_errors=stderr', '-d', 'memory_limit=128M', '-r', $program], [['pipe', 'r'], ['pipe', 'w'], ['file', '/dev/null', 'w']], $pipes, null, $environment + getenv());
        [$this->input, $this->output] = $pipes;
        stream_set_blocking($this->output, false);
    }

    public function __destruct()
    {
        if (null === $this->exit) {
            proc_terminate($this->process, 9);
            $this->wait();
        }
    }

    public function pid(): int
    {
        return proc_get_status($this->process)['pid'];
    }

    public function tell(string $line): void
    {
        fwrite($this->input, $line."\n");
    }

    /** Waits for a line that begins so, and returns the rest of it. */
    public function says(string $begin, float $seconds = 60): string
    {
        return substr(Until::is(function () use ($begin): ?string {
            $this->printed .= fread($this->output, 65536);
            if (preg_match('/^'.preg_quote($begin, '/').'.*\n/m', $this->printed, $match)) {
                return rtrim($match[0], "\n").' ';
            }
            if (feof($this->output)) {
                throw new \RuntimeException(sprintf('The script ended without saying "%s", but: %s', $begin, $this->printed));
            }

            return null;
        }, $seconds, '"'.$begin.'"'), \strlen($begin), -1);
    }

    public function kill(int $signal = 9): void
    {
        posix_kill($this->pid(), $signal);
    }

    /** Everything that it printed, once it has ended. */
    public function ends(float $seconds = 60): string
    {
        Until::is(function (): bool {
            $this->printed .= fread($this->output, 65536);

            return feof($this->output);
        }, $seconds, 'the end of the script');
        $this->wait();

        return $this->printed;
    }

    public function exitCode(): int
    {
        return $this->exit;
    }

    private function wait(): void
    {
        fclose($this->input);
        $this->exit = proc_close($this->process);
    }
}
