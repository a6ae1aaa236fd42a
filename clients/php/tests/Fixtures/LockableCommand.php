<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Fixtures;

use Symfony\Component\Console\Command\Command;
use Symfony\Component\Console\Command\LockableTrait;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Output\OutputInterface;
use Symfony\Component\Lock\LockFactory;

/** A command as the documentation of Symfony has it, from 7.1 on, where the trait takes a factory. */
final class LockableCommand extends Command
{
    use LockableTrait;

    public function __construct(LockFactory $factory)
    {
        parent::__construct('app:lockable');
        $this->lockFactory = $factory;
    }

    protected function execute(InputInterface $input, OutputInterface $output): int
    {
        return $this->lock() ? self::SUCCESS : self::FAILURE;
    }
}
