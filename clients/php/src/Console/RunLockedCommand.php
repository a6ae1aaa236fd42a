<?php

declare(strict_types=1);

namespace SmallResource\Client\Console;

use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Renewal\Guard;
use SmallResource\Client\ResourceFactory;
use SmallResource\Client\ResourceLock;
use Symfony\Component\Console\Attribute\AsCommand;
use Symfony\Component\Console\Command\Command;
use Symfony\Component\Console\Formatter\OutputFormatter;
use Symfony\Component\Console\Input\InputArgument;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Input\InputOption;
use Symfony\Component\Console\Output\ConsoleOutputInterface;
use Symfony\Component\Console\Output\OutputInterface;

/**
 * Runs a command under a lock: `bin/console small-resource:run nightly -- php job.php`. The command is ended before
 * anybody else can hold the lock.
 */
#[AsCommand(name: 'small-resource:run', description: 'Runs a command while a lock is held')]
final class RunLockedCommand extends Command
{
    /** As sysexits.h has them: try again later, and what was promised could not be kept. */
    public const NOT_OBTAINED = 75;
    public const LOST = 76;

    /** As a shell has them. */
    private const NOT_EXECUTABLE = 126;
    private const NOT_FOUND = 127;

    /** The signals that ask a process to end. */
    private const ENDING = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'];

    /** Microseconds. */
    private const LOOK_EVERY = 50_000;

    /** Seconds before the lease can end by which the command is dead, however busy the machine is. */
    private const MARGIN = 0.5;

    public function __construct(private readonly ResourceFactory $resources)
    {
        parent::__construct('small-resource:run');
    }

    protected function configure(): void
    {
        $this->addArgument('name', InputArgument::REQUIRED, 'of the lock')
            ->addArgument('cmd', InputArgument::REQUIRED | InputArgument::IS_ARRAY, 'the command and its arguments, after --')
            ->addOption('ttl', 't', InputOption::VALUE_REQUIRED, 'seconds that the lock is held after this process died', '30')
            ->addOption('wait', 'w', InputOption::VALUE_REQUIRED, 'seconds to wait for the lock', '0')
            ->addOption('owner', null, InputOption::VALUE_REQUIRED, 'who is shown to hold it', gethostname().':'.getmypid())
            ->addOption('reason', null, InputOption::VALUE_REQUIRED, 'why, for people')
            ->setHelp(sprintf('Exits as the command does; %d: the lock is busy, %d: it was lost and the command ended for that, %d: the command is not executable, %d: it was not found; 128 and the number of a signal that came in the wait.', self::NOT_OBTAINED, self::LOST, self::NOT_EXECUTABLE, self::NOT_FOUND));
    }

    protected function execute(InputInterface $input, OutputInterface $output): int
    {
        $errors = $output instanceof ConsoleOutputInterface ? $output->getErrorOutput() : $output;
        foreach (['ttl', 'wait'] as $option) {
            if (!is_numeric($input->getOption($option))) {
                $errors->writeln(sprintf('<error>--%s takes a number of seconds.</error>', $option));

                return self::INVALID;
            }
        }
        $ttl = (float) $input->getOption('ttl');
        if ($ttl < 3) {
            $errors->writeln('<error>The ttl is at least 3 seconds, so that there is time to end the command when the lock is lost.</error>');

            return self::INVALID;
        }
        $command = $input->getArgument('cmd');
        if (null !== $refusal = $this->whyNotToRun($command[0])) {
            $errors->writeln('<error>'.OutputFormatter::escape($refusal[1]).'</error>');

            return $refusal[0];
        }
        $lock = $this->resources->getResource($input->getArgument('name'));
        $signal = null;
        // Symfony would end this process as if all were well.
        $restore = $this->onSignals(self::ENDING, static function (int $number) use (&$signal): void {
            $signal = $number;

            throw new \RuntimeException('The wait was ended by a signal.');
        });
        try {
            $held = $lock->acquire($input->getOption('owner'), $ttl, (float) $input->getOption('wait'), $input->getOption('reason'));
            $guard = $held ? $lock->autoRenew($ttl / 3, $ttl) : null;
        } catch (\Throwable $e) {
            $signal ?? throw $e;
        } finally {
            $restore();
        }
        if (null !== $signal) {
            return 128 + $signal;
        }
        if (null === $guard) {
            $errors->writeln(sprintf('<error>The lock "%s" is busy.</error>', $lock->name));

            return self::NOT_OBTAINED;
        }
        try {
            return $this->runUnder($lock, $guard, $command, $ttl);
        } catch (LockLost $lost) {
            $errors->writeln('<error>'.$lost->getMessage().'</error>');

            return self::LOST;
        } finally {
            $guard->stop();
            $lock->release();
        }
    }

    /**
     * Before the lock is asked for: a command that is not there is no reason to wait.
     *
     * @return array{int, string}|null exit code and sentence; null: it can be run, or that cannot be known
     */
    private function whyNotToRun(string $program): ?array
    {
        if ('\\' === \DIRECTORY_SEPARATOR || ini_get('open_basedir')) {
            return null;
        }
        $files = [$program];
        if (!str_contains($program, '/')) {
            $folders = explode(':', getenv('PATH') ?: '/bin:/usr/bin');
            $files = array_map(static fn (string $folder) => ('' === $folder ? '.' : $folder).'/'.$program, $folders);
        }
        if (array_filter($files, static fn (string $file) => is_file($file) && is_executable($file))) {
            return null;
        }

        return array_filter($files, 'file_exists')
            ? [self::NOT_EXECUTABLE, sprintf('"%s" is not a program that can be executed.', $program)]
            : [self::NOT_FOUND, sprintf('The command "%s" was not found.', $program)];
    }

    private function runUnder(ResourceLock $lock, Guard $guard, array $command, float $ttl): int
    {
        $environment = ['LOCK_NAME' => $lock->name, 'LOCK_FENCING_TOKEN' => (string) $lock->fencingToken()] + getenv();
        $process = $early = null;
        // Before the command starts: a signal between the two would end this process, and the command would go on
        // after the lock.
        $restore = $this->passSignalsOn($process, $early);
        try {
            // Its standard streams are ours.
            $process = proc_open($command, [\STDIN, \STDOUT, \STDERR], $pipes, null, $environment);
            if (false === $process) {
                return self::NOT_EXECUTABLE;
            }
            null === $early || proc_terminate($process, $early);

            return $this->waitFor($process, $lock, $guard, $ttl);
        } finally {
            $restore();
        }
    }

    /** @param resource $process */
    private function waitFor($process, ResourceLock $lock, Guard $guard, float $ttl): int
    {
        // Time for the command to end by itself.
        $grace = self::MARGIN + min(5.0, $ttl / 3);
        $told = false;
        while (($status = proc_get_status($process))['running']) {
            $left = $this->remaining($lock, $guard);
            if ($left <= self::MARGIN) {
                proc_terminate($process, 9);
                proc_close($process);
                $guard->check();

                throw LockLost::deadlinePassed($lock->name);
            }
            if (!$told && $left < $grace) {
                $told = proc_terminate($process, 15);
            }
            usleep(self::LOOK_EVERY);
        }
        proc_close($process);

        return $status['signaled'] ? 128 + $status['termsig'] : $status['exitcode'];
    }

    /**
     * What asks this process to end goes to the command, and the lock is kept until that has ended. Without this the
     * command would go on after the lock.
     *
     * @param resource|false|null $process null: it is not started yet
     * @param int|null            $early   the last signal that came before it was
     *
     * @return \Closure(): void puts the handlers back that were there
     */
    private function passSignalsOn(&$process, ?int &$early): \Closure
    {
        return $this->onSignals([...self::ENDING, 'SIGUSR1', 'SIGUSR2'], static function (int $signal) use (&$process, &$early): void {
            if (!\is_resource($process)) {
                $early = $signal;

                return;
            }
            // A terminal sends what is typed to the command, too.
            $typed = \in_array($signal, [\SIGINT, \SIGQUIT], true) && stream_isatty(\STDIN);
            $typed || proc_terminate($process, $signal);
        });
    }

    /**
     * @param list<string>         $names  of the signals; those that are ignored stay so
     * @param \Closure(int): void $handle
     *
     * @return \Closure(): void puts the handlers back that were there
     */
    private function onSignals(array $names, \Closure $handle): \Closure
    {
        $before = [];
        if (!\function_exists('pcntl_signal')) {
            return static fn () => null;
        }
        $async = pcntl_async_signals(true);
        foreach (array_map(\constant(...), $names) as $signal) {
            $handler = pcntl_signal_get_handler($signal);
            if (\SIG_IGN === $handler) {
                continue;
            }
            $before[$signal] = $handler;
            pcntl_signal($signal, $handle);
        }

        return static function () use ($before, $async): void {
            array_map(pcntl_signal(...), array_keys($before), $before);
            pcntl_async_signals($async);
        };
    }

    /** Seconds for which the lock is certainly held; 0.0 when it is lost. */
    private function remaining(ResourceLock $lock, Guard $guard): float
    {
        try {
            $guard->check();
        } catch (LockLost) {
            return 0.0;
        }

        return $lock->remaining() ?? \INF;
    }
}
