<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** A name, a time or a document that the server does not take (400). */
final class RequestMalformed extends ResourceServerException
{
}
